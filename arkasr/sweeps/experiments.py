"""The experiment folders of a sweep, and the overrides of their runs.

`<expdir>/seed-1/<point>` is an ordinary experiment folder. The shared runs of a seed are in `<expdir>/seed-1/shared`,
and the runs that are trained once for all seeds in `<expdir>/once`. Links lead to them from the folders that use them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arkasr.config.load import load_config, override_word
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.points import Point, overrides_of
from arkasr.sweeps.repetitions import Repetition, repetitions
from arkasr.sweeps.sweep_file import ONCE, SHARED, Sweep

EXPDIR, DATADIR = "{expdir}", "{datadir}"
ONLY_POINT = "runs"  # folder of the only point of a sweep without grid and points


@dataclass(frozen=True)
class Experiment:
    """One experiment folder: the runs trained once, the shared runs of a seed, or those of one point and repetition.

    Attributes:
        sweep: The sweep.
        repetition: Seed and rounding.
        point: The point, None for the shared runs and those that are trained once.
    """

    sweep: Sweep
    repetition: Repetition
    point: Point | None

    @property
    def name(self) -> str:
        """Path of the folder below the folder of the sweep."""
        return self.repetition.name if self.repetition.is_once else f"{self.repetition.name}/{self.place}"

    @property
    def place(self) -> str:
        """Name of the folder, which is the same for all repetitions."""
        if self.point is not None:
            return self.point.name or ONLY_POINT
        return ONCE if self.repetition.is_once else SHARED

    @property
    def listed(self) -> list[str]:
        """The runs that the sweep file lists for this folder, also those to skip."""
        file = self.sweep.file
        if self.point is not None:
            return file.runs
        return file.once if self.repetition.is_once else file.shared

    @property
    def runs(self) -> list[str]:
        """The runs to train here."""
        skip = self.sweep.file.skip
        if self.point is not None and self.point.name in skip:
            return []
        return [run for run in self.listed if run not in skip]

    @property
    def above(self) -> list[Experiment]:
        """The experiments whose runs can be used here. Links lead to them."""
        if self.repetition.is_once:
            return []
        once = once_experiment(self.sweep)
        return [once] if self.point is None else [once, shared_experiment(self)]

    def values(self, run: str) -> dict[str, Any]:
        """Return the overrides of one run.

        Args:
            run: Name of the run. Empty: for `arkasr label`.

        Returns:
            Values by key of the configuration.
        """
        repetition = self.repetition
        own = {"seed": repetition.seed} | ({"rounding": repetition.rounding} if repetition.rounding else {})
        return overrides_of(run, own, self.sweep.file.overrides, self.point.overrides if self.point else {})

    def words(self, run: str) -> list[str]:
        """Return the overrides of one run as words of a command.

        Args:
            run: See `values`.

        Returns:
            `section.key=value` items.
        """
        return [override_word(key, value) for key, value in self.values(run).items()]

    def config(self, run: str) -> Config:
        """Load the configuration of one run, with {expdir} and {datadir} in its paths.

        Args:
            run: Name of the run.

        Returns:
            The configuration.

        Raises:
            UserError: A key is unknown or a value is wrong. The message names the point.
        """
        try:
            return load_config(self.sweep.conf, run, EXPDIR, DATADIR, self.words(run))
        except UserError as error:
            where = f"point {self.point.name}, " if self.point and self.point.name else ""
            raise UserError(f"{self.sweep.path}: {where}run {run}: {error}") from error

    @property
    def first(self) -> Experiment:
        """The same point of the first seed. Its runs need the same ones as here."""
        first = Repetition(self.sweep.file.seeds[0], is_once=self.repetition.is_once)
        return Experiment(self.sweep, first, self.point)


def experiments(sweep: Sweep) -> list[Experiment]:
    """Return the experiments of the points of a sweep, seed by seed.

    Args:
        sweep: The sweep.

    Returns:
        One experiment per repetition and point.
    """
    return [Experiment(sweep, each, point) for each in repetitions(sweep) for point in sweep.points]


def once_experiment(sweep: Sweep) -> Experiment:
    """Return the experiment of the runs that are trained once for all seeds and roundings.

    Args:
        sweep: The sweep.

    Returns:
        The experiment, with the first seed and no rounding.
    """
    return Experiment(sweep, Repetition(sweep.file.seeds[0], is_once=True), None)


def shared_experiment(experiment: Experiment) -> Experiment:
    """Return the experiment of the shared runs of the same seed.

    Args:
        experiment: Experiment of a point.

    Returns:
        The shared experiment.
    """
    return Experiment(experiment.sweep, Repetition(experiment.repetition.seed), None)
