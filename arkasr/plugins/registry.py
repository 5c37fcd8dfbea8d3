"""Finds plugins, keeps the names they register, and says what clashed or failed.

Built-ins are loaded through the same hooks as installed packages. Each plugin is loaded by itself: one that fails
registers nothing, is listed with its cause, and stops a run only when a name is asked for that nobody has. A name
with two claims stops a run only when it is asked for. Environment: ARKASR_PLUGINS='' loads no installed plugin, 'a,b'
only those entry points; ARKASR_STRICT_PLUGINS=1 makes every failure and clash fatal. Built-ins are always loaded.
"""

from __future__ import annotations

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
from arkasr.plugins.loader import Entry, PluginSource, cause_of, load_plugins, said

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
    entries: list[Entry]
    failures: list[tuple[PluginSource, str]]

    def claims(self, kind: str, name: str) -> list[Entry]:
        return [entry for entry in self.entries if (entry.kind, entry.name) == (kind, name)]

    def clash(self, kind: str, name: str) -> str:
        claims = self.claims(kind, name)
        if len(claims) < 2:
            return ""
        sources = " and ".join(str(entry.source) for entry in claims)
        mend = "uninstall one, or set ARKASR_PLUGINS to leave one out"
        return f"{said(kind)} {name!r} is claimed by {sources}; {mend}"


def create(kind: str, name: str, options: dict[str, Any], **context: Any) -> Any:
    """Call the factory registered as `name` with its checked options and the context of its kind (see hookspecs).

    kind: `teacher`, `token_mapper` or `loss`. Raises UserError as `check` does; what the factory itself raises passes
    through.
    """
    made = check_plugin(kind, name, options)
    entry = _find(kind, name)
    return _attribute(entry, entry.factory)(made, **context)


def check_plugin(kind: str, name: str, options: dict[str, Any]) -> Any:
    """Return the plugin's options as an instance of its config dataclass, None where it declares none.

    Raises UserError for a name that is unknown or claimed twice, a plugin that cannot be imported, and options that
    do not fit.
    """
    entry = _find(kind, name)
    config, where = _attribute(entry, entry.config), f"options of {said(kind)} {name!r}, {entry.source}"
    if config is None and options:
        raise UserError(f"{where}: it takes no options; remove {', '.join(options)}")
    if config is not None and not (isinstance(config, type) and is_dataclass(config)):
        raise UserError(f"{where}: its config must be a dataclass, not {config!r}")
    return None if config is None else check_options(config, options, where)


def listing() -> list[dict[str, str]]:
    """Return a row for each registered name and each failed plugin: kind, name, distribution, version, file, error.

    Imports the plugins' modules but nothing that they name lazily. Failed plugins come last, with an empty kind and
    the entry point as their name.
    """
    table = _checked_table()
    rows = [_row(e.kind, e.name, e.source, table.clash(e.kind, e.name)) for e in table.entries]
    rows += [_row("", source.entry, source, cause) for source, cause in table.failures]
    return sorted(rows, key=lambda row: (not row["kind"], row["kind"], row["name"], row["distribution"]))


def fingerprint() -> str:
    """Return a hash that is equal on all ranks that loaded the same plugins; it ignores where they are installed."""
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


def _find(kind: str, name: str) -> Entry:
    table = _checked_table()
    claims = table.claims(kind, name)
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise UserError(table.clash(kind, name))
    names = sorted({entry.name for entry in table.entries if entry.kind == kind})
    failed = "".join(f"; not loaded: {source}: {cause}" for source, cause in table.failures)
    package = PACKAGE_OF.get((kind, name))
    install = f"it needs the package {package}: pip install ./plugins/{package}; " if package else ""
    raise UserError(f"no {said(kind)} is called {name!r}; {install}available: {', '.join(names) or 'none'}{failed}")


def _attribute(entry: Entry, value: Any) -> Any:
    """Import what a "module:attribute" text names; anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    module, _, path = value.partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        return found
    except (Exception, SystemExit) as error:
        message = f"{said(entry.kind)} {entry.name!r}, {entry.source}: {value} cannot be imported: {cause_of(error)}"
        raise UserError(message) from error


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
