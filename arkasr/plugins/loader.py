"""Loads plugins one by one, so that none can take another along, and takes down what each registers."""

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
    """Where a plugin comes from: its entry point (or built-in module), distribution, and what is imported."""

    entry: str
    distribution: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.module})" if self.module else self.entry


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    kind: str
    name: str
    factory: Any
    config: Any
    source: PluginSource


def load_plugins(builtins: Sequence[str]) -> tuple[list[Entry], list[tuple[PluginSource, str]]]:
    """Load the built-in modules and the installed plugins that ARKASR_PLUGINS allows.

    Returns what was registered, and each plugin that failed with its cause; such a plugin registers nothing.
    """
    entries, failures = [], []
    for source, load in _sources(builtins):
        try:
            entries += _registered(load(), source)
        except (Exception, SystemExit) as error:
            failures.append((source, cause_of(error)))
    return entries, failures


def cause_of(error: BaseException) -> str:
    """Return in one line what an exception says."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def said(kind: str) -> str:
    """Return the kind as people say it."""
    return kind.replace("_", " ")


def _sources(builtins: Sequence[str]) -> Iterator[tuple[PluginSource, Callable[[], Any]]]:
    for module in builtins:
        yield PluginSource(module, "arkasr", __version__, module), partial(import_module, module)
    # importlib.metadata itself, because pluggy's loader skips the second of two entry points with one name
    points = sorted(entry_points(group=hookspecs.GROUP), key=lambda point: (point.name, point.dist.name))
    limit = os.environ.get("ARKASR_PLUGINS")
    wanted = [point.name for point in points] if limit is None else [n.strip() for n in limit.split(",") if n.strip()]
    for point in points:
        if point.name in wanted:
            module = point.value.partition(":")[0].strip()
            yield PluginSource(point.name, point.dist.name, point.dist.version, module), point.load
    for name in sorted(set(wanted) - {point.name for point in points}):
        yield PluginSource(name, "", "", ""), partial(_refuse_unknown_entry, name, points)


def _refuse_unknown_entry(name: str, points: list[EntryPoint]) -> None:
    installed = ", ".join(point.name for point in points) or "none"
    raise UserError(f"ARKASR_PLUGINS names {name}, but no installed plugin is called so; installed: {installed}")


def _registered(plugin: Any, source: PluginSource) -> list[Entry]:
    """Let one plugin register its names; raises UserError, or pluggy's error for a wrong signature."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    _refuse_unknown_hooks(manager, plugin)
    entries: list[Entry] = []
    for kind, hook in KINDS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            implementation.function(register=partial(_register, entries, kind, source))
    if not entries:
        hooks = ", ".join(KINDS.values())
        raise UserError(f"registers nothing: mark a function called {hooks} with @arkasr.hookimpl and call register")
    return entries


def _register(
    entries: list[Entry], kind: str, source: PluginSource, name: str, factory: Any, config: Any = None
) -> None:
    """Take one registration; see hookspecs.Register."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{said(kind)} {name!r}: a name is made of letters, digits, '_', '-' and '.'")
    if any((entry.kind, entry.name) == (kind, name) for entry in entries):
        raise UserError(f"registers {said(kind)} {name!r} twice")
    lazy = re.compile(r"[\w.]+:[\w.]+")
    if not (lazy.fullmatch(factory) if isinstance(factory, str) else callable(factory)):
        raise UserError(f"{said(kind)} {name!r}: factory must be callable or 'module:attribute', not {factory!r}")
    if not (lazy.fullmatch(config) if isinstance(config, str) else config is None or _is_schema(config)):
        raise UserError(f"{said(kind)} {name!r}: config must be a dataclass or 'module:attribute', not {config!r}")
    entries.append(Entry(kind, name, factory, config, source))


def _is_schema(config: Any) -> bool:
    return isinstance(config, type) and is_dataclass(config)


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            close = get_close_matches(caller.name, KINDS.values(), 1, cutoff=0.0)[0]
            raise UserError(f"{caller.name} is marked as a hook, but arkasr has none of this name; use {close}")
