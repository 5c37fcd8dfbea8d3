"""The experiment folders of a sweep, the overrides of their runs, and what each run needs from others.

`<expdir>/seed-1/<point>` is an ordinary experiment folder. The shared runs of a seed are in `<expdir>/seed-1/shared`.
Links lead to them from the folders of the points.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from arkasr.config.load import load_config, override_word, run_names
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.points import Point, overrides_of
from arkasr.sweeps.sweep_file import SHARED, Sweep

EXPDIR, DATADIR = "{expdir}", "{datadir}"
LABEL = "label"  # name of the task that labels audio. Its result is not that of a run
LABELLED = "td_teacher"
LABEL_FILES = ("td_teacher.jsonl.gz", "td_teacher.jsonl", "td_teacher.json")
PLUGINS = ("teacher", "mapper", "loss", "rollout", "distill", "teacher_data")  # sections that only OPD runs read
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
        """Return the overrides of one run as words of a command (see `values`)."""
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

    def needs(self, run: str) -> list[str]:
        """Return the runs that one run needs, and `LABEL` if it reads labelled audio.

        Args:
            run: Name of the run, or `LABEL`.

        Returns:
            Names of runs of this experiment or of the shared one.

        Raises:
            UserError: It needs a run that is not in the sweep.
        """
        return _needs(self.first, run)


@cache
def label_config(experiment: Experiment) -> Config:
    """Return the configuration that `arkasr label` uses: that of the first OPD run, or of the first run.

    Args:
        experiment: The experiment.

    Returns:
        The configuration, with {expdir} and {datadir} in its paths.
    """
    sweep, words = experiment.sweep, experiment.words("")
    configs = [load_config(sweep.conf, name, EXPDIR, DATADIR, words) for name in run_names(sweep.conf)]
    return next((config for config in configs if config.objective == "opd"), configs[0])


@cache
def _needs(experiment: Experiment, run: str) -> list[str]:
    if run == LABEL:
        values = {"teacher": asdict(label_config(experiment))["teacher"]}
    else:
        values = _read_by(experiment.config(run))
    found = []
    for text in _texts(values):
        first = Path(text.removeprefix(f"{EXPDIR}/")).parts[0] if text.startswith(f"{EXPDIR}/") else ""
        name = LABEL if first.startswith(LABELLED) else first
        if name and name not in found:
            found.append(name)
    file, path = experiment.sweep.file, experiment.sweep.path
    known = {LABEL, *file.shared, *(file.runs if experiment.point is not None else ())}
    for name in found:
        if name == run:
            raise UserError(f"{path}: run {run} starts from its own result; correct its paths")
        if name not in known:
            where = "shared" if experiment.point is None else "shared or runs"
            raise UserError(f"{path}: run {run} needs the run {name}, which is not in {where}; add it")
    return found


def _read_by(config: Config) -> dict[str, Any]:
    """Return the values that a run reads."""
    values = asdict(config)
    return values if config.objective == "opd" else {key: each for key, each in values.items() if key not in PLUGINS}


def _texts(value: Any) -> Iterator[str]:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in items:
        yield from _texts(item)
    if isinstance(value, str):
        yield value


def experiments(sweep: Sweep) -> list[Experiment]:
    """Return the experiments of the points of a sweep, seed by seed.

    Args:
        sweep: The sweep.

    Returns:
        One experiment per repetition and point.
    """
    repetitions = [Repetition(seed, each) for seed in sweep.file.seeds for each in sweep.file.roundings]
    return [Experiment(sweep, repetition, point) for repetition in repetitions for point in sweep.points]


def shared_experiment(experiment: Experiment) -> Experiment:
    """Return the experiment of the shared runs of the same seed.

    Args:
        experiment: Experiment of a point.

    Returns:
        The shared experiment.
    """
    return Experiment(experiment.sweep, Repetition(experiment.repetition.seed), None)


def labels_are_shared(experiment: Experiment) -> bool:
    """Return whether a point can use the labels of the shared experiment: same teacher, same clips, same selection.

    Args:
        experiment: Experiment of a point.

    Returns:
        True if a shared run is, or nothing but a pretrained model is, the teacher, and the point does not change it.
    """
    own, shared = (label_config(each.first) for each in (experiment, shared_experiment(experiment)))
    same = all(getattr(own, key) == getattr(shared, key) for key in ("teacher", "teacher_data", "data"))
    return same and not set(experiment.needs(LABEL)) & set(experiment.sweep.file.runs)


def link_shared(experiment: Experiment, expdir: Path, labels: bool) -> None:
    """Create the folder of an experiment with links to the shared runs.

    Args:
        experiment: Experiment of a point, or the shared one.
        expdir: Folder of the sweep.
        labels: Whether the labels of the shared experiment are used.

    Raises:
        UserError: Something else has the name of a link.
    """
    folder = expdir / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    if experiment.point is None:
        return
    shared = expdir / shared_experiment(experiment).name
    for name in [*experiment.sweep.file.shared, *(LABEL_FILES if labels else ())]:
        link, target = folder / name, os.path.relpath(shared / name, folder)
        with suppress(FileExistsError):  # by an earlier call, or by another process
            link.symlink_to(target)
        if not link.is_symlink() or os.readlink(link) != target:
            raise UserError(f"{link}: is no link to {target}, the shared run; move it away, or use another --expdir")
