"""What is known of a teacher's size without loading it: its model, a number that its plugin gives, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arkasr.config.schema import Config
from arkasr.errors import UserError
from arkasr.planning.forecast import ModelOutline
from arkasr.plugins import registry

BUILTIN = "arkasr"  # distribution of the built-in plugins


@dataclass(frozen=True)
class TeacherSize:
    """The size of the run's teacher.

    Attributes:
        name: Name of the plugin. Empty for supervised runs.
        models: Its models, if they can be counted.
        memory_gib: GiB per GPU that the plugin gives for itself. None if it gives none.
        unknown: Why nothing is known. Empty if something is.
    """

    name: str = ""
    models: list[ModelOutline] = field(default_factory=list)
    memory_gib: float | None = None
    unknown: str = ""

    def describe(self) -> dict[str, Any] | None:
        """Return the JSON-serialisable description of a plan, None for supervised runs."""
        if not self.name:
            return None
        total = sum(model.counts.total for model in self.models)
        return {
            "name": self.name,
            "source": "; ".join(model.source for model in self.models) or self.unknown or "its plugin",
            "parameters": {"total": total} if self.models else None,
            "memory_gib": self.memory_gib,
            "known": not self.unknown,
        }


def teacher_size(config: Config, outline_at: Callable[[str], ModelOutline]) -> TeacherSize:
    """Find out the size of a run's teacher from the options of its plugin.

    The first of these applies:

    1. The attribute or method `memory_gib` of the options: GiB per GPU. 0 for a teacher that computes elsewhere.
    2. The models at the option `path` or `paths`.
    3. Nothing is known.

    Args:
        config: The run's configuration.
        outline_at: Returns the outline of the model at a folder or Hub id.

    Returns:
        The size.

    Raises:
        UserError: The plugin or its options are wrong, or the model of a built-in teacher is not found.
    """
    if config.objective == "sft":
        return TeacherSize()
    name = config.teacher.name
    options = registry.check_plugin("teacher", name, config.teacher.options)
    if (stated := getattr(options, "memory_gib", None)) is not None:
        return TeacherSize(name, memory_gib=_checked(name, stated() if callable(stated) else stated))
    paths = getattr(options, "paths", None) or [getattr(options, "path", "")]
    if not all(isinstance(path, str) and path for path in paths):
        return TeacherSize(name, unknown="its options name no model")
    try:
        return TeacherSize(name, [outline_at(path) for path in paths])
    except UserError as error:
        if _is_builtin(name):
            raise
        return TeacherSize(name, unknown=str(error))


def _checked(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UserError(
            f"teacher {name!r}: memory_gib of its options is {value!r}; it must be a number of GiB, at least 0; "
            "correct the plugin"
        )
    return float(value)


def _is_builtin(name: str) -> bool:
    rows = registry.listing()
    return any((row["kind"], row["name"], row["distribution"]) == ("teacher", name, BUILTIN) for row in rows)
