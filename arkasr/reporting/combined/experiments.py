"""Read the scores of several experiments for `arkasr table`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import paper_numbers, run_records
from arkasr.reporting import report_facts, vuss_table
from arkasr.reporting.tables import Scores

_NAMED = re.compile(r"([\w.-]{1,40})=(.+)", re.DOTALL)


@dataclass
class Experiment:
    """One experiment.

    Attributes:
        name: Name of its rows, empty if the rows of all experiments without a name are one model each.
        folder: Experiment directory as the user named it.
        scores: Content of scores.json by run, in the order of tables.
        unscored: Runs that were decoded and not scored.
        vuss: Training rows of the runs of Table 2, by run.
        top_k: k of these runs, "-" if it is not recorded.
    """

    name: str
    folder: str
    scores: Scores
    unscored: list[str] = field(default_factory=list)
    vuss: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    top_k: dict[str, str] = field(default_factory=dict)


def read_experiments(values: Sequence[str]) -> list[Experiment]:
    """Read experiments.

    Args:
        values: Experiment directories, each as `EXPDIR` or `NAME=EXPDIR`.

    Returns:
        The experiments in the order of the values.

    Raises:
        UserError: A folder is missing, is no experiment, has no scores or damaged ones, or is named twice.
    """
    found: dict[Path, Experiment] = {}
    for value in values:
        name, folder = _split(value)
        place = Path(folder).resolve()
        if place in found:
            raise UserError(f"{folder}: is named twice ({found[place].folder}); name each experiment once")
        found[place] = _read(name, folder)
    return list(found.values())


def _split(value: str) -> tuple[str, str]:
    named = None if Path(value).is_dir() else _NAMED.fullmatch(value)
    name, folder = (named[1], named[2]) if named else ("", value)
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; name an experiment, such as exp/mini or small=exp/mini")
    return name, folder


def _read(name: str, folder: str) -> Experiment:
    runs = sorted(path.parent.name for path in Path(folder).glob("*/scores.json"))
    decoded = sorted({path.parent.parent.name for path in Path(folder).glob("*/decode/*.jsonl")})
    if not runs:
        raise UserError(_without_scores(folder, decoded))
    runs.sort(key=paper_numbers.row_number)
    scores = {run: content for run in runs if (content := run_records.read_scores(folder, run)) is not None}
    experiment = Experiment(name, folder, scores, [run for run in decoded if run not in scores])
    for run in vuss_table.CONDITIONS:
        if rows := run_records.read_metrics(folder, run):
            experiment.vuss[run] = rows
            config = run_records.read_run(folder, run)["config"]
            experiment.top_k[run] = report_facts.setting(config, report_facts.SETTINGS["top-k"])
    return experiment


def _without_scores(folder: str, decoded: Sequence[str]) -> str:
    if (Path(folder) / "scores.json").is_file() or (Path(folder) / "run.json").is_file():
        return f"{folder}: is the folder of one run; name the experiment, {Path(folder).parent}"
    if decoded:
        return f"{folder}: {', '.join(decoded)} decoded, but not scored; run the recipe from --stage 5"
    if any(Path(folder).glob("*/run.json")):
        return f"{folder}: its runs are not decoded; run the recipe from --stage 4"
    return f"{folder}: has no runs; name an experiment, or run the recipe from --stage 3"
