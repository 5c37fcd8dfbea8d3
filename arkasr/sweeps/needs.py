"""What each run of a sweep needs from others. The paths in its configuration show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from arkasr.config.load import load_config, run_names
from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.experiments import DATADIR, EXPDIR, Experiment, shared_experiment

LABEL = "label"  # name of the task that labels audio. Its result is not that of a run
LABELLED = "td_teacher"  # begins the names of its results
PLUGINS = ("teacher", "mapper", "loss", "rollout", "distill", "teacher_data")  # sections that only OPD runs read


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


def needs_of(experiment: Experiment, run: str) -> list[str]:
    """Return the runs that one run needs, and `LABEL` if it reads labelled audio.

    Args:
        experiment: The experiment of the run.
        run: Name of the run, or `LABEL`.

    Returns:
        Names of runs of this experiment or of the shared one.

    Raises:
        UserError: It needs a run that is not in the sweep.
    """
    return _needs(experiment.first, run)


@cache
def _needs(experiment: Experiment, run: str) -> list[str]:
    if run == LABEL:
        values = {"teacher": asdict(label_config(experiment))["teacher"]}
    else:
        values = _read_by(experiment.config(run))
    runs, found = {LABEL, *run_names(experiment.sweep.conf)}, []
    for text in _texts(values):
        first = Path(text.removeprefix(f"{EXPDIR}/")).parts[0] if text.startswith(f"{EXPDIR}/") else ""
        name = LABEL if first.startswith(LABELLED) else first
        if name in runs and name not in found:  # others are files of the run itself, such as cached states
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


def labels_are_shared(experiment: Experiment) -> bool:
    """Return whether a point can use the labels of the shared experiment: same teacher, same clips, same selection.

    Args:
        experiment: Experiment of a point.

    Returns:
        True if a shared run is, or nothing but a pretrained model is, the teacher, and the point does not change it.
    """
    own, shared = (label_config(each.first) for each in (experiment, shared_experiment(experiment)))
    same = all(getattr(own, key) == getattr(shared, key) for key in ("teacher", "teacher_data", "data"))
    return same and not set(needs_of(experiment, LABEL)) & set(experiment.sweep.file.runs)
