"""The record of a sweep in its folder: a sweep that has changed since is refused, unless it was only extended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment, Repetition
from arkasr.sweeps.runner import STATE
from arkasr.sweeps.sweep_file import SHARED, Sweep
from arkasr.sweeps.tasks import Folders
from arkasr.utils.console import log
from arkasr.utils.files import read_json, write_text

AGAIN = "use another --expdir"
LISTS = ("seeds", "roundings")
MOST_NAMED = 5  # changes in a message


def settings(sweep: Sweep) -> dict[str, Any]:
    """Return what determines the results of a sweep, besides seeds and data.

    Args:
        sweep: The sweep.

    Returns:
        The configuration of each run by `<point>/<run>`, with {expdir} and {datadir} in its paths.

    Raises:
        UserError: A configuration is wrong.
    """
    first, file = Repetition(sweep.file.seeds[0]), sweep.file
    parts = [(Experiment(sweep, first, None), file.shared)]
    parts += [(Experiment(sweep, first, point), file.runs) for point in sweep.points]
    return {f"{each.name.partition('/')[2]}/{run}": _without_seeds(each, run) for each, runs in parts for run in runs}


def _without_seeds(experiment: Experiment, run: str) -> dict[str, Any]:
    values = asdict(experiment.config(run)) | {"rounding": None}
    point = experiment.point.overrides if experiment.point else {}
    if f"runs.{run}.seed" not in {**experiment.sweep.file.overrides, **point}:
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
        where = name.removeprefix(f"{SHARED}/")
        texts = _differences(values, new[name], default, "") if name in new else ["removed"]
        changes += [f"{where}: {text}" for text in texts]
    return changes


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
