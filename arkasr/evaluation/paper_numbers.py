"""The paper's own numbers (arXiv 2605.28139, Tables 1 and 2), and which run of ours is which of its rows."""

from __future__ import annotations

from arkasr.errors import UserError

TITLES = {
    "teacher": "Teacher",
    "base": "Base",
    "base_opd": "Base+OPD",
    "base_td": "Base+TD",
    "base_td_opd": "Base+TD+OPD",
}

COLUMNS = ("AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other")

# Table 1: CER of the first three columns, WER of the last two, in percent.
TABLE1 = {
    "base": ("Ark-Base", (3.48, 10.22, 7.74, 3.75, 7.17)),
    "base_opd": ("Ark-Base+OPD", (3.00, 7.18, 6.13, 2.88, 5.50)),
    "base_td_opd": ("Ark-Base+TD+OPD", (1.95, 5.92, 5.39, 2.45, 4.56)),
    "qwen3_asr_0.6b": ("Qwen3-ASR-0.6B", (2.07, 5.57, 5.45, 2.81, 5.05)),
    "teacher": ("Qwen3-ASR-1.7B", (1.50, 4.69, 4.55, 2.20, 4.05)),
}

# Table 2, VUSS: mean, min, max over the steps of the OPD run that starts before, and after, teacher data.
TABLE2 = {"base_opd": (53.06, 52.38, 54.20), "base_td_opd": (51.61, 50.88, 52.41)}
TOP_K = 32


def title(run: str) -> str:
    """Return the name of a run as the tables show it."""
    return TITLES.get(run, run)


def rate(run: str, column: str | None) -> float | None:
    """Return the paper's error rate in percent, None where it has none.

    Raises UserError where `column` is no column of its Table 1.
    """
    if not column:
        return None
    known = [name.lower() for name in COLUMNS]
    if column.lower() not in known:
        raise UserError(f"corpus.json: paper column {column!r} is not in the paper's Table 1: {', '.join(COLUMNS)}")
    return TABLE1[run][1][known.index(column.lower())] if run in TABLE1 else None
