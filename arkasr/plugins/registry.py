"""The table of registered names: it creates plugins, checks their options and lists what clashed or failed.

- Built-ins are loaded through the same hooks as installed packages, and always.
- Each plugin is loaded separately. One that fails registers no name and is listed with its cause. It stops a run only
  if the run needs a name that no other plugin registers.
- A name that two plugins register stops a run only if the run needs it.

Environment variables:

- ARKASR_PLUGINS: entry points of installed plugins to load, separated by commas. Empty: none. Not set: all.
- ARKASR_STRICT_PLUGINS=1: every failure and every clash is fatal.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import sys
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from arkasr.config.load import check_options
from arkasr.errors import UserError
from arkasr.plugins.loader import PluginSource, RegisteredName, describe_error, kind_label, load_plugins

BUILTINS = (
    "arkasr.builtin.teachers.local",
    "arkasr.builtin.teachers.whisper",
    "arkasr.builtin.mappers.shared_strings",
    "arkasr.builtin.mappers.identity",
    "arkasr.builtin.mappers.byte_offsets",
    "arkasr.builtin.losses",
)
# Packages under plugins/ by the names that they register, for the message about a name that is not installed.
PACKAGE_OF = {("teacher", "qwen3_asr_http"): "arkasr-vllm"}


@dataclass
class _Table:
    entries: list[RegisteredName]
    failures: list[tuple[PluginSource, str]]

    def find(self, kind: str, name: str) -> list[RegisteredName]:
        return [entry for entry in self.entries if (entry.kind, entry.name) == (kind, name)]

    def clash(self, kind: str, name: str) -> str:
        """Return the message about a name that several plugins register, empty if at most one does."""
        found = self.find(kind, name)
        if len(found) < 2:
            return ""
        sources = " and by ".join(str(entry.source) for entry in found)
        what_to_do = "uninstall one of them, or select plugins with ARKASR_PLUGINS"
        return f"{kind_label(kind)} {name!r} is registered by {sources}; {what_to_do}"


def create(kind: str, name: str, options: dict[str, Any], **context: Any) -> Any:
    """Check the options of a plugin and call its factory.

    Args:
        kind: `teacher`, `token_mapper` or `loss`.
        name: The registered name.
        options: The plugin's options, as in a configuration.
        **context: Keyword arguments of the factory: `device` for teachers, `student` and `teacher` for token mappers,
            none for losses. See `arkasr.hookspecs`.

    Returns:
        The return value of the factory.

    Raises:
        UserError: As in `check_plugin`. Errors of the factory are not changed.
    """
    checked = check_plugin(kind, name, options)
    entry = _find(kind, name)
    return _attribute(entry, entry.factory)(checked, **context)


def check_plugin(kind: str, name: str, options: dict[str, Any]) -> Any:
    """Check the options of a plugin without creating it.

    Args:
        kind: `teacher`, `token_mapper` or `loss`.
        name: The registered name.
        options: The plugin's options, as in a configuration.

    Returns:
        An instance of the plugin's options dataclass, or None if it has none.

    Raises:
        UserError: The name is unknown or registered twice, the plugin cannot be imported, or an option is wrong.
    """
    entry = _find(kind, name)
    config, where = _attribute(entry, entry.config), f"options of {kind_label(kind)} {name!r}, {entry.source}"
    if config is None and options:
        raise UserError(f"{where}: the plugin takes no options; remove {', '.join(options)}")
    if config is not None and not (isinstance(config, type) and is_dataclass(config)):
        raise UserError(f"{where}: its config must be a dataclass, got {config!r}")
    return None if config is None else check_options(config, options, where)


def listing() -> list[dict[str, str]]:
    """List the registered names and the plugins that failed.

    This imports the plugins' modules, but not the factories that they name as "module:attribute".

    Returns:
        One row per name with `kind`, `name`, `distribution`, `version`, `file` and `error`. Failed plugins are last.
        Their `kind` is empty and their `name` is the entry point.
    """
    table = _checked_table()
    rows = [_row(e.kind, e.name, e.source, table.clash(e.kind, e.name)) for e in table.entries]
    rows += [_row("", source.entry, source, cause) for source, cause in table.failures]
    return sorted(rows, key=lambda row: (not row["kind"], row["kind"], row["name"], row["distribution"]))


def fingerprint() -> str:
    """Return a hash of the loaded plugins, to compare ranks.

    Returns:
        A hash of kinds, names, distributions and versions, and of which plugins failed. Paths do not matter.
    """
    parts = [[row["kind"], row["name"], row["distribution"], row["version"], bool(row["error"])] for row in listing()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _row(kind: str, name: str, source: PluginSource, error: str) -> dict[str, str]:
    return {
        "kind": kind,
        "name": name,
        "distribution": source.distribution,
        "version": source.version,
        "file": _file(source.module),
        "error": error,
    }


def _file(module: str) -> str:
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None) or ""
    try:
        spec = find_spec(module.partition(".")[0]) if module else None
    except (ImportError, ValueError):
        return ""
    return spec.origin or "" if spec else ""


def _find(kind: str, name: str) -> RegisteredName:
    table = _checked_table()
    found = table.find(kind, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(table.clash(kind, name))
    names = sorted({entry.name for entry in table.entries if entry.kind == kind})
    failed = "".join(f"; not loaded: {source}: {cause}" for source, cause in table.failures)
    package = PACKAGE_OF.get((kind, name))
    install = f"it needs the package {package}: pip install ./plugins/{package}; " if package else ""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    available = f"available: {', '.join(names) or 'none'}"
    raise UserError(f"no {kind_label(kind)} is called {name!r}; {hint}{install}{available}{failed}")


def _attribute(entry: RegisteredName, value: Any) -> Any:
    """Return the attribute that a "module:attribute" string names, and any other value unchanged."""
    if not isinstance(value, str):
        return value
    module, _, path = value.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        return found
    except (Exception, SystemExit) as error:
        label, cause = f"{kind_label(entry.kind)} {entry.name!r}, {entry.source}", describe_error(error)
        raise UserError(f"{label}: {value} cannot be imported: {cause}") from error


def _checked_table() -> _Table:
    table = _load()
    problems = [f"{source}: {cause}" for source, cause in table.failures]
    problems += sorted({table.clash(entry.kind, entry.name) for entry in table.entries} - {""})
    if problems and os.environ.get("ARKASR_STRICT_PLUGINS", "") not in ("", "0"):
        raise UserError(f"ARKASR_STRICT_PLUGINS is set and {'; '.join(problems)}")
    return table


@lru_cache
def _load() -> _Table:
    return _Table(*load_plugins(BUILTINS))
