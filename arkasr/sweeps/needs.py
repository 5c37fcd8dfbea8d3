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
from arkasr.sweeps.experiments import DATADIR, EXPDIR, Experiment, once_experiment, shared_experiment
from arkasr.sweeps.sweep_file import RUN_LISTS

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
        Names of runs of this experiment or of those above it.

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
    for name in found:
        _check_need(experiment, run, name)
    return found


def _check_need(experiment: Experiment, run: str, name: str) -> None:
    path, allowed = experiment.sweep.path, RUN_LISTS[: len(experiment.above) + 1]
    if name == run:
        raise UserError(f"{path}: run {run} starts from its own result; correct its paths")
    if name == LABEL or any(name in each.listed for each in (*experiment.above, experiment)):
        return
    who, where = ("arkasr label" if run == LABEL else f"run {run}"), " or ".join(allowed)
    others = [each for each in RUN_LISTS if name in getattr(experiment.sweep.file, each)]
    advice = f"move it from {others[0]}, or list what needs it there" if others else "add it"
    raise UserError(f"{path}: {who} in {allowed[-1]} needs the run {name}, which is not in {where}; {advice}")


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


def labels_of(experiment: Experiment) -> Experiment:
    """Return the experiment in which the audio of another one is labelled.

    Teachers transcribe by greedy decoding, which reads neither seed nor rounding. So one teacher labels once.

    Args:
        experiment: Any experiment.

    Returns:
        The experiment itself if the teacher is among its runs, or its point changes teacher, clips or selection. Else
        that of the runs trained once, if these or pretrained models are the teacher. Else the shared one.
    """
    once, shared = once_experiment(experiment.sweep), shared_experiment(experiment)
    own, others = label_config(experiment.first), label_config(once)
    same = all(getattr(own, key) == getattr(others, key) for key in ("teacher", "teacher_data", "data"))
    needs = {*needs_of(experiment, LABEL)}
    if not same or needs & {*experiment.sweep.file.runs}:
        return experiment
    return once if needs <= {*once.listed} else shared
