"""The record of a sweep in its folder: a sweep that has changed since is refused, unless it was only extended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment, once_experiment
from arkasr.sweeps.repetitions import Repetition
from arkasr.sweeps.runner import STATE
from arkasr.sweeps.sweep_file import ONCE, SHARED, Sweep
from arkasr.sweeps.tasks import Folders
from arkasr.utils.console import log
from arkasr.utils.files import read_json, write_text

AGAIN = "use another --expdir"
LISTS = ("seeds", "roundings")
MOST_NAMED = 5  # changes in a message


def settings(sweep: Sweep) -> dict[str, Any]:
    """Return what determines the results of a sweep, besides data and the seeds that runs are repeated with.

    Args:
        sweep: The sweep.

    Returns:
        The configuration of each run by `<folder>/<run>`, with {expdir} and {datadir} in its paths.

    Raises:
        UserError: A configuration is wrong.
    """
    first = Repetition(sweep.file.seeds[0])
    parts = [once_experiment(sweep), *(Experiment(sweep, first, point) for point in (None, *sweep.points))]
    return {f"{each.place}/{run}": _without_seeds(each, run) for each in parts for run in each.listed}


def _without_seeds(experiment: Experiment, run: str) -> dict[str, Any]:
    values = asdict(experiment.config(run)) | {"rounding": None}
    point = experiment.point.overrides if experiment.point else {}
    is_fixed = experiment.repetition.is_once or f"runs.{run}.seed" in {**experiment.sweep.file.overrides, **point}
    if not is_fixed:
        values["seed"] = None
    return dict(json.loads(json.dumps(values)))  # as the record returns it


def open_record(sweep: Sweep, folders: Folders) -> None:
    """Compare a sweep with the one that its folder was made with, and record it.

    Args:
        sweep: The sweep.
        folders: Where it works.

    Raises:
        UserError: Settings have changed, runs or points were removed, or the data directory is another one.
    """
    path = folders.expdir / STATE / "sweep.json"
    datadir = str(folders.datadir.resolve())
    present: dict[str, Any] = {"datadir": datadir, "settings": settings(sweep)}
    present |= {key: getattr(sweep.file, key) for key in LISTS}
    if path.is_file():
        before = read_json(path, f"restore it, or {AGAIN}")
        if changes := _changes(before, present):
            more = f" and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
            raise UserError(
                f"{folders.expdir}: {sweep.path} is not the sweep that this folder was made with: "
                f"{'; '.join(changes[:MOST_NAMED])}{more}; restore the file, or {AGAIN}"
            )
        _report_additions(before, present)
    elif others := [each.name for each in sorted(folders.expdir.glob("*")) if each.name != STATE]:
        raise UserError(f"{folders.expdir}: holds other files ({others[0]}) and is no folder of a sweep; {AGAIN}")
    write_text(path, json.dumps(present, indent=1, ensure_ascii=False) + "\n")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    if before.get("datadir") != now["datadir"]:
        changes.append(f"--datadir was {before.get('datadir')}, is {now['datadir']}")
    for key in LISTS:
        gone = [str(value) for value in before.get(key) or [] if value not in now[key]]
        changes += [f"{key}: {', '.join(gone)} removed"] if gone else []
    old, new, default = before.get("settings") or {}, now["settings"], asdict(Config())
    for name, values in old.items():
        texts = _differences(values, new[name], default, "") if name in new else [_removal(name, new)]
        changes += [f"{_shown(name)}: {text}" for text in texts]
    return changes


def _shown(name: str) -> str:
    """Return how a run is called in messages: without its folder if it is the only one of its name."""
    place, _, run = name.partition("/")
    return run if place in (ONCE, SHARED) else name


def _removal(name: str, new: Mapping[str, Any]) -> str:
    place, _, run = name.partition("/")
    others = [each for each in (ONCE, SHARED) if f"{each}/{run}" in new]
    return f"was in {place}, is in {others[0]}" if others else "removed"


def _differences(old: Any, new: Any, default: Any, key: str) -> list[str]:
    """Return the keys that differ. A key that the record of an earlier version lacks had its default."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{key} was {json.dumps(old)}, is {json.dumps(new)}"]
    defaults = default if isinstance(default, dict) else {}
    texts = []
    for name in dict.fromkeys([*old, *new]):
        standard = defaults.get(name)
        texts += _differences(old.get(name, standard), new.get(name), standard, f"{key}.{name}".strip("."))
    return texts


def _report_additions(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    added = [f"{key} {value}" for key in LISTS for value in now[key] if value not in before[key]]
    added += [name for name in now["settings"] if name not in before["settings"]]
    if added:
        log(f"the sweep was extended by {', '.join(added)}")
