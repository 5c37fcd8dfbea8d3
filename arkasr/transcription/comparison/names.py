"""Short names of models, for columns and messages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from arkasr.errors import UserError

ORDINARY = ("final", "export", "model")  # names of folders that do not tell models apart


def named_models(values: Sequence[str]) -> dict[str, str]:
    """Name models.

    Args:
        values: Models, each as NAME=MODEL or MODEL.

    Returns:
        The models by name, in their order. Without a name it is the end of the path that differs from the other models,
        such as `base` of `exp/base/final`.

    Raises:
        UserError: A model or a name comes twice.
    """
    pairs = [value.partition("=")[::2] if re.match(r"[^=/\\]+=.", value) else ("", value) for value in values]
    models = [model for _, model in pairs]
    for model in models:
        if models.count(model) > 1:
            raise UserError(f"--model {model}: is named twice; name each model once")
    short = _short_names(models)
    names = [name or short[model] for name, model in pairs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--model: two models have the name {name!r}; give each one of its own, as NAME=MODEL")
    return dict(zip(names, models, strict=True))


def _short_names(models: Sequence[str]) -> dict[str, str]:
    """Return of each model the shortest end of its path that no other model has."""
    parts = {model: _parts(model) for model in models}
    names = {}
    for model, own in parts.items():
        others = [other for name, other in parts.items() if name != model]
        size = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        names[model] = "/".join(own[-size:])
    return names


def _parts(model: str) -> list[str]:
    found = [part for part in PurePath(model).parts if part not in ("/", ".")]
    while len(found) > 1 and found[-1] in ORDINARY:
        found.pop()
    return found or [model]
