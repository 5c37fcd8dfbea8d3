"""What was measured of each row of a sweep: counts per utterance, and costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet
from arkasr.evaluation.run_records import read_metrics, read_run
from arkasr.reporting.set_scores import score_set
from arkasr.reporting.vuss_table import Rows
from arkasr.scoring.tally import Tally
from arkasr.scoring.utterances import Utterance
from arkasr.sweeps.repetitions import Repetition
from arkasr.sweeps.rows import Row
from arkasr.sweeps.tasks import is_trained

COSTS = ("hours", "tokens", "flops", "wall_seconds")  # keys of run.json


@dataclass
class Results:
    """What was measured of one row.

    Attributes:
        tallies: Counts per utterance, by test set and repetition.
        costs: Values of `COSTS` by repetition, as far as they were recorded.
        metrics: Training rows of distilled runs by repetition.
        missing: Why a repetition has no result.
    """

    tallies: dict[str, dict[Repetition, Tally]] = field(default_factory=dict)
    costs: dict[Repetition, dict[str, float]] = field(default_factory=dict)
    metrics: dict[Repetition, Rows] = field(default_factory=dict)
    missing: dict[Repetition, str] = field(default_factory=dict)


def collect(row: Row, expdir: Path, sets: dict[str, tuple[TestSet, dict[str, Utterance]]]) -> Results:
    """Read the results of one row.

    Args:
        row: The row.
        expdir: Folder of the sweep.
        sets: Test sets with their utterances, by name.

    Returns:
        The results. A repetition without hypotheses of a test set is missing.
    """
    results = Results(tallies={name: {} for name in sets})
    for repetition, experiment in row.experiments().items():
        folder = expdir / experiment.name
        if row.is_skipped or not is_trained(folder, row.run):
            results.missing[repetition] = "skipped" if row.is_skipped else "not run"
            continue
        try:
            record = read_run(folder, row.run)
            results.costs[repetition] = {key: record[key] for key in COSTS if _is_number(record.get(key))}
            metrics = read_metrics(folder, row.run)
            if any(each.get("vuss") for each in metrics):
                results.metrics[repetition] = metrics
            for name, (tested, utterances) in sets.items():
                tallies, _ = score_set(str(folder), row.run, tested, utterances, record)
                if tallies:
                    results.tallies[name][repetition] = tallies[tested.profiles[0]]
        except UserError as error:
            results.missing[repetition] = str(error)
    return results


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
