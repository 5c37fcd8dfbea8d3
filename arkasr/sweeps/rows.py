"""The rows of a sweep's table: shared runs, and the runs of each point, over all repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet
from arkasr.evaluation.run_records import read_run
from arkasr.reporting.set_scores import score_set
from arkasr.scoring.tally import Tally
from arkasr.scoring.utterances import Utterance
from arkasr.sweeps.experiments import EXPDIR, Experiment, Repetition
from arkasr.sweeps.points import Point
from arkasr.sweeps.sweep_file import Sweep
from arkasr.sweeps.tasks import is_trained

COSTS = ("hours", "tokens", "flops", "wall_seconds")  # keys of run.json


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        sweep: The sweep.
        run: Name of the run.
        point: The point, None for a shared run.
    """

    sweep: Sweep
    run: str
    point: Point | None

    @property
    def label(self) -> str:
        """Name of the row: the run, the point, or `<point>/<run>` if each point has several runs."""
        if self.point is None or not self.point.name:
            return self.run
        return self.point.name if len(self.sweep.file.runs) == 1 else f"{self.point.name}/{self.run}"

    @property
    def is_skipped(self) -> bool:
        """Whether the sweep file skips the run or the point."""
        return self.run in self.sweep.file.skip or bool(self.point and self.point.name in self.sweep.file.skip)

    def experiments(self) -> dict[Repetition, Experiment]:
        """Return the experiments of all repetitions. Shared runs have one per seed."""
        file = self.sweep.file
        roundings = file.roundings if self.point is not None else [0]
        found = [Repetition(seed, rounding) for seed in file.seeds for rounding in roundings]
        return {each: Experiment(self.sweep, each, self.point) for each in found}

    def parent(self) -> Row | None:
        """Return the row of the run that this one starts from, None if it starts from none of the sweep."""
        first = next(iter(self.experiments().values()))
        path = first.config(self.run).model.path
        name = Path(path.removeprefix(f"{EXPDIR}/")).parts[0] if path.startswith(f"{EXPDIR}/") else ""
        if not name:
            return None
        return Row(self.sweep, name, None if name in self.sweep.file.shared else self.point)


def rows_of(sweep: Sweep) -> list[Row]:
    """Return the rows of a sweep.

    Args:
        sweep: The sweep.

    Returns:
        The shared runs, then the runs of each point.
    """
    points = [Row(sweep, run, point) for point in sweep.points for run in sweep.file.runs]
    return [*(Row(sweep, run, None) for run in sweep.file.shared), *points]


def control_of(row: Row, name: str, rows: Sequence[Row]) -> Row | None:
    """Return the row that another one is compared with.

    Args:
        row: The row.
        name: A value of `controls`: the label of a row, or a run, which stands for that of the same point.
        rows: All rows.

    Returns:
        The control, or None if the row is the control itself, or its point has no such run.
    """
    found = [each for each in rows if each.label == name]
    found += [each for each in rows if each.run == name and each.point in (None, row.point)]
    return found[0] if found and found[0] != row else None


def check_controls(sweep: Sweep) -> None:
    """Refuse controls that are no rows.

    Args:
        sweep: The sweep.

    Raises:
        UserError: A control is neither the label of a row nor a run.
    """
    rows = rows_of(sweep)
    known = list(dict.fromkeys([*(row.label for row in rows), *(row.run for row in rows)]))
    for name in sweep.file.controls:
        if name not in known:
            raise UserError(f"{sweep.path}: controls: {name} is no row of the table; known are {', '.join(known)}")


@dataclass
class Results:
    """What was measured of one row.

    Attributes:
        tallies: Counts per utterance, by test set and repetition.
        costs: Values of `COSTS` by repetition, as far as they were recorded.
        missing: Why a repetition has no result.
    """

    tallies: dict[str, dict[Repetition, Tally]] = field(default_factory=dict)
    costs: dict[Repetition, dict[str, float]] = field(default_factory=dict)
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
            for name, (tested, utterances) in sets.items():
                tallies, _ = score_set(str(folder), row.run, tested, utterances, record)
                if tallies:
                    results.tallies[name][repetition] = tallies[tested.profiles[0]]
        except UserError as error:
            results.missing[repetition] = str(error)
    return results


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
