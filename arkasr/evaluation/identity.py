"""What identifies a teacher, so that transcripts and runs of another one can be recognised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from arkasr.config.schema import PluginConfig
from arkasr.utils.files import sampled_digest
from arkasr.utils.redact import values_without_secrets


def teacher_identity(teacher: PluginConfig) -> dict[str, Any]:
    """Describe a teacher so that another one can be recognised.

    Args:
        teacher: The `teacher` section of a configuration.

    Returns:
        `name`, `options` (without `path` and without secrets), `path`, and `weights`: a digest of the files at `path`.
        It covers names, sizes and samples of each file. It is empty if `path` is not on the local disk (a Hub id).
        `models`: the same digests of models that other options name, by key. Absent if there are none.
    """
    options = values_without_secrets({key: value for key, value in teacher.options.items() if key != "path"})
    options = json.loads(json.dumps(options, default=str))  # as a record returns them: YAML has dates and whole keys
    path = str(teacher.options.get("path", ""))
    models = {key: digest for key, value in _texts(options) if "/" in value and (digest := sampled_digest(Path(value)))}
    return {
        "name": teacher.name,
        "options": options,
        "path": values_without_secrets(path),
        "weights": sampled_digest(Path(path)) if path else "",
    } | ({"models": models} if models else {})


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted key and value of all texts in nested options."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from _texts(item, f"{key}.{name}" if key else str(name))
    if isinstance(value, str):
        yield key, value


def changed_teacher(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Compare two teachers. Equal weights at another path are the same teacher.

    Args:
        old: An earlier result of `teacher_identity`.
        new: A present result of `teacher_identity`.

    Returns:
        What differs, as configuration keys. Empty if both are the same teacher.
    """
    changed = ["teacher.name"] if old["name"] != new["name"] else []
    changed += [f"teacher.options.{key}" for key in _changed_keys(old["options"], new["options"])]
    compared = "weights" if old["weights"] and new["weights"] else "path"
    if old[compared] != new[compared]:
        changed.append("weights in teacher.options.path" if compared == "weights" else "teacher.options.path")
    models = [side.get("models", {}) for side in (old, new)]
    both = [{key: side[key] for key in models[0].keys() & models[1].keys()} for side in models]
    return changed + [f"weights in teacher.options.{key}" for key in _changed_keys(*both)]


def _changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    absent = object()
    return [key for key in sorted({*old, *new}) if old.get(key, absent) != new.get(key, absent)]
