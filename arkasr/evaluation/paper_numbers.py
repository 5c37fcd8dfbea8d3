"""Results of the paper (arXiv:2605.28139, Tables 1 and 2), by the names of the runs that correspond to its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet

TITLES = {
    "teacher": "Teacher",
    "base": "Base",
    "base_steps": "Base+steps",
    "base_audio": "Base+audio",
    "base_opd": "Base+OPD",
    "base_td": "Base+TD",
    "base_td_audio": "Base+TD+audio",
    "base_td_opd": "Base+TD+OPD",
    "base_opd_labelled": "Base+OPD (labelled)",
    "topline": "Topline",
}

COLUMNS = ("AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other")

# Test sets that only the model card's tables have, see `arkasr.evaluation.published_tables`.
CARD_COLUMNS = ("AMI", "Earnings22", "GigaSpeech", "SPGISpeech", "VoxPopuli")

# Table 1: the paper's model name, then CER of the first three columns and WER of the last two, in percent.
TABLE1 = {
    "base": ("Ark-Base", (3.48, 10.22, 7.74, 3.75, 7.17)),
    "base_opd": ("Ark-Base+OPD", (3.00, 7.18, 6.13, 2.88, 5.50)),
    "base_td_opd": ("Ark-Base+TD+OPD", (1.95, 5.92, 5.39, 2.45, 4.56)),
    "qwen3_asr_0.6b": ("Qwen3-ASR-0.6B", (2.07, 5.57, 5.45, 2.81, 5.05)),
    "teacher": ("Qwen3-ASR-1.7B", (1.50, 4.69, 4.55, 2.20, 4.05)),
}

# Rows of Table 1 that are published checkpoints, by their Hub ids. The first is this row by its model card.
CHECKPOINTS = {
    "AutoArk-AI/ARK-ASR-0.6B": "base_td_opd",
    "Qwen/Qwen3-ASR-0.6B": "qwen3_asr_0.6b",
    "Qwen/Qwen3-ASR-1.7B": "teacher",
}

# Table 2: mean, minimum and maximum VUSS over the steps of OPD before and after training on teacher data (TD).
TABLE2 = {"base_opd": (53.06, 52.38, 54.20), "base_td_opd": (51.61, 50.88, 52.41)}
TOP_K = 32


def title(run: str) -> str:
    """Return the title of one run for tables and figures.

    Args:
        run: Name of the run.

    Returns:
        The title, or the name itself for a run that is not part of the recipe.
    """
    return TITLES.get(run, run)


def row_number(run: str) -> int:
    """Return the place of one run in tables.

    Args:
        run: Name of the run.

    Returns:
        Index among the runs of the recipes. All other runs have the same, which is the highest.
    """
    return list(TITLES).index(run) if run in TITLES else len(TITLES)


def row(run: str, content: Mapping[str, Any]) -> str:
    """Return the row of the paper's Table 1 that belongs to one of our rows.

    Args:
        run: Name of the run or of the checkpoint.
        content: Content of its scores.json.

    Returns:
        Key of `TABLE1`: the run's name, or that of the same checkpoint. Empty if the paper has no such row.
    """
    path = (content.get("checkpoint") or {}).get("path", "")
    if path:
        return CHECKPOINTS.get("/".join(Path(path).parts[-2:]), "")
    return run if run in TABLE1 else ""


def columns(sets: Iterable[TestSet]) -> dict[str, str]:
    """Return the columns of the paper's Table 1 that belong to test sets.

    Args:
        sets: The test sets. Those that are not in the paper have no column.

    Returns:
        Column by test set, in the order of the test sets.

    Raises:
        UserError: Neither Table 1 nor the model card has such a column.
    """
    found = {each.name: each.column for each in sets if each.column}
    for column in found.values():
        rate("base", column)
    only_card = {column.lower() for column in CARD_COLUMNS}
    return {name: column for name, column in found.items() if column.lower() not in only_card}


def rate(run: str, column: str | None) -> float | None:
    """Return an error rate of the paper's Table 1.

    Args:
        run: Key of `TABLE1`.
        column: Column of Table 1 or of the model card (case is ignored), or None for another test set.

    Returns:
        The error rate in percent, or None if Table 1 has none.

    Raises:
        UserError: Neither Table 1 nor the model card has such a column.
    """
    if not column or column.lower() in {name.lower() for name in CARD_COLUMNS}:
        return None
    known = [name.lower() for name in COLUMNS]
    if column.lower() not in known:
        raise UserError(
            f"corpus.json: paper column {column!r} is not in the paper's Table 1 or the model card; correct it in "
            f"corpus.yaml (one of: {', '.join((*COLUMNS, *CARD_COLUMNS))}) and run the recipe from --stage 1"
        )
    return TABLE1[run][1][known.index(column.lower())] if run in TABLE1 else None
