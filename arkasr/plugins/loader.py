"""Imports each plugin separately and records what it registers. One failing plugin does not affect the others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from arkasr import __version__, hookspecs
from arkasr.errors import UserError

KINDS = {"teacher": "register_teachers", "token_mapper": "register_token_mappers", "loss": "register_losses"}


@dataclass(frozen=True)
class PluginSource:
    """Where a plugin comes from.

    Attributes:
        entry: Name of its entry point, or of the built-in module.
        distribution: Name of the package that installed it.
        version: Version of that package.
        module: Module that is imported.
    """

    entry: str
    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.module})" if self.module else self.entry


@dataclass(frozen=True)
class RegisteredName:
    """One registered name.

    Attributes:
        kind: A key of `KINDS`.
        name: The registered name.
        factory: The factory, or its "module:attribute".
        config: The dataclass of the options, its "module:attribute", or None.
        source: The plugin that registered the name.
    """

    kind: str
    name: str
    factory: Any
    config: Any
    source: PluginSource


def load_plugins(builtins: Sequence[str]) -> tuple[list[RegisteredName], list[tuple[PluginSource, str]]]:
    """Load the built-in modules, and the installed plugins that ARKASR_PLUGINS selects (all if it is not set).

    Args:
        builtins: Names of the built-in modules.

    Returns:
        The registered names, and each plugin that failed with the cause. A plugin that fails registers no name.
    """
    entries: list[RegisteredName] = []
    failures: list[tuple[PluginSource, str]] = []
    for source, load in _sources(builtins):
        try:
            entries += _registered(load(), source)
        except (Exception, SystemExit) as error:
            failures.append((source, describe_error(error)))
    return entries, failures


def describe_error(error: BaseException) -> str:
    """Return an exception as one line of text.

    Args:
        error: The exception.

    Returns:
        Its type and message, or the message only for a UserError.
    """
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def kind_label(kind: str) -> str:
    """Return a kind as it is written in messages.

    Args:
        kind: A key of `KINDS`.

    Returns:
        The kind in words, such as "token mapper".
    """
    return kind.replace("_", " ")


def _sources(builtins: Sequence[str]) -> Iterator[tuple[PluginSource, Callable[[], Any]]]:
    for module in builtins:
        yield PluginSource(module, "arkasr", __version__, module), partial(import_module, module)
    # importlib.metadata and not pluggy's loader, which skips the second of two entry points with the same name
    points = sorted(entry_points(group=hookspecs.GROUP), key=lambda point: (point.name, _distribution(point)))
    limit = os.environ.get("ARKASR_PLUGINS")
    wanted = [point.name for point in points] if limit is None else [n.strip() for n in limit.split(",") if n.strip()]
    for point in points:
        if point.name in wanted:
            module = point.value.partition(":")[0].strip()
            yield PluginSource(point.name, *_distribution(point), module), point.load
    for name in sorted(set(wanted) - {point.name for point in points}):
        yield PluginSource(name, "", "", ""), partial(_refuse_unknown_entry, name, points)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    assert point.dist is not None  # entry_points() sets it
    return point.dist.name, point.dist.version


def _refuse_unknown_entry(name: str, points: list[EntryPoint]) -> None:
    installed = ", ".join(point.name for point in points) or "none"
    raise UserError(
        f"ARKASR_PLUGINS names {name}, which is not an installed plugin (installed: {installed}); install it, "
        "or correct the variable"
    )


def _registered(plugin: Any, source: PluginSource) -> list[RegisteredName]:
    """Call the hooks of one plugin and return its names. Raises UserError, or pluggy's error for a wrong signature."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    _refuse_unknown_hooks(manager, plugin)
    entries: list[RegisteredName] = []
    for kind, hook in KINDS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            implementation.function(register=partial(_register, entries, kind, source))
    if not entries:
        hooks = " or ".join(KINDS.values())
        raise UserError(f"registers no name; mark a function called {hooks} with @arkasr.hookimpl and call register")
    return entries


def _register(
    entries: list[RegisteredName], kind: str, source: PluginSource, name: str, factory: Any, config: Any = None
) -> None:
    """Check and record one registration, see `hookspecs.Register`."""
    label = f"{kind_label(kind)} {name!r}"
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{label}: a name may contain letters, digits, '_', '-' and '.' only")
    if any((entry.kind, entry.name) == (kind, name) for entry in entries):
        raise UserError(f"registers {label} twice; use another name")
    lazy = re.compile(r"[\w.]+:[\w.]+")
    if not (lazy.fullmatch(factory) if isinstance(factory, str) else callable(factory)):
        raise UserError(f"{label}: factory must be callable or 'module:attribute', got {factory!r}")
    if not (lazy.fullmatch(config) if isinstance(config, str) else config is None or _is_schema(config)):
        raise UserError(f"{label}: config must be a dataclass or 'module:attribute', got {config!r}")
    entries.append(RegisteredName(kind, name, factory, config, source))


def _is_schema(config: Any) -> bool:
    return isinstance(config, type) and is_dataclass(config)


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            close = get_close_matches(caller.name, KINDS.values(), 1, cutoff=0.0)[0]
            raise UserError(f"{caller.name} is marked as a hook, but arkasr has no such hook; use {close}")
