"""The experiment folders of a sweep, and the overrides of their runs.

`<expdir>/seed-1/<point>` is an ordinary experiment folder. The shared runs of a seed are in `<expdir>/seed-1/shared`.
Links lead to them from the folders of the points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arkasr.config.load import load_config, override_word
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.points import Point, overrides_of
from arkasr.sweeps.sweep_file import SHARED, Sweep

EXPDIR, DATADIR = "{expdir}", "{datadir}"
ONLY_POINT = "runs"  # folder of the only point of a sweep without grid and points


@dataclass(frozen=True)
class Repetition:
    """One seed with one rounding (see `Config`)."""

    seed: int
    rounding: int = 0

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"seed-{self.seed}" + (f"-rounding-{self.rounding}" if self.rounding else "")


@dataclass(frozen=True)
class Experiment:
    """One experiment folder: the shared runs of a seed, or the runs of one point and repetition.

    Attributes:
        sweep: The sweep.
        repetition: Seed and rounding.
        point: The point, None for the shared runs.
    """

    sweep: Sweep
    repetition: Repetition
    point: Point | None

    @property
    def name(self) -> str:
        """Path of the folder below the folder of the sweep."""
        point = SHARED if self.point is None else self.point.name or ONLY_POINT
        return f"{self.repetition.name}/{point}"

    @property
    def runs(self) -> list[str]:
        """The runs to train here."""
        file = self.sweep.file
        if self.point is not None and self.point.name in file.skip:
            return []
        return [run for run in (file.shared if self.point is None else file.runs) if run not in file.skip]

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
        return Experiment(self.sweep, Repetition(self.sweep.file.seeds[0]), self.point)


def experiments(sweep: Sweep) -> list[Experiment]:
    """Return the experiments of the points of a sweep, seed by seed.

    Args:
        sweep: The sweep.

    Returns:
        One experiment per repetition and point.
    """
    return [Experiment(sweep, each, point) for each in repetitions(sweep) for point in sweep.points]


def repetitions(sweep: Sweep) -> list[Repetition]:
    """Return the repetitions of each point, seed by seed.

    Args:
        sweep: The sweep.

    Returns:
        Each seed with all roundings, or with the first one if it is not among `rounding_seeds`.
    """
    file = sweep.file
    repeated = file.rounding_seeds or file.seeds
    return [
        Repetition(seed, rounding)
        for seed in file.seeds
        for rounding in (file.roundings if seed in repeated else file.roundings[:1])
    ]


def shared_experiment(experiment: Experiment) -> Experiment:
    """Return the experiment of the shared runs of the same seed.

    Args:
        experiment: Experiment of a point.

    Returns:
        The shared experiment.
    """
    return Experiment(experiment.sweep, Repetition(experiment.repetition.seed), None)
