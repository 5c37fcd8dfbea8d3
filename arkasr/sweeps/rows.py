"""The rows of a sweep's table: runs trained once, shared runs, and the runs of each point, over all repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arkasr.errors import UserError
from arkasr.sweeps.experiments import EXPDIR, Experiment, once_experiment
from arkasr.sweeps.points import Point
from arkasr.sweeps.repetitions import Repetition, repetitions
from arkasr.sweeps.sweep_file import Sweep


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        sweep: The sweep.
        run: Name of the run.
        point: The point, None for a run that is shared or trained once.
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
        """Return the experiments of all repetitions. Shared runs have one per seed, and runs trained once have one."""
        if self.point is None and self.run in self.sweep.file.once:
            once = once_experiment(self.sweep)
            return {once.repetition: once}
        shared = [Repetition(seed) for seed in self.sweep.file.seeds]
        found = repetitions(self.sweep) if self.point is not None else shared
        return {each: Experiment(self.sweep, each, self.point) for each in found}

    def parent(self) -> Row | None:
        """Return the row of the run that this one starts from, None if it starts from none of the sweep."""
        first = next(iter(self.experiments().values()))
        path = first.config(self.run).model.path
        name = Path(path.removeprefix(f"{EXPDIR}/")).parts[0] if path.startswith(f"{EXPDIR}/") else ""
        if not name:
            return None
        return Row(self.sweep, name, self.point if name in self.sweep.file.runs else None)


def rows_of(sweep: Sweep) -> list[Row]:
    """Return the rows of a sweep.

    Args:
        sweep: The sweep.

    Returns:
        The runs trained once, the shared runs, then the runs of each point.
    """
    points = [Row(sweep, run, point) for point in sweep.points for run in sweep.file.runs]
    return [*(Row(sweep, run, None) for run in (*sweep.file.once, *sweep.file.shared)), *points]


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
