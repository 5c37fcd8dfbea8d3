"""The config of a run: layers of YAML over the schema's defaults, strict throughout.

Precedence, said once: dataclass defaults < `base:` YAML (one level) < YAML < the run's overlay < `section.key=value`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from arkasr.config.schema import Config
from arkasr.config.validate import build_dataclass, check_values, join, kinds_of
from arkasr.config.yaml_io import parse_yaml, read_yaml, to_yaml
from arkasr.errors import UserError

COMMAND_LINE = "command line"


@dataclass
class _File(Config):
    """What a conf may hold beside the sections."""

    base: str | None = None  # path of the YAML below this one, relative to this file
    runs: dict[str, Any] = field(default_factory=dict)  # run name -> what it changes in the sections


def load_config(conf_path: str | Path, run: str, expdir: str, datadir: str, overrides: Sequence[str] = ()) -> Config:
    """Return the resolved config of one run of a conf.

    overrides: `section.key=value` items, in any order. `{expdir}` and `{datadir}` are replaced in every text value.
    Raises UserError for an unknown, repeated or mistyped key or an unknown run, naming the file or the command line.
    """
    files = _files(conf_path)
    overlays = [runs[run] for _, runs in files if run in runs]
    if not overlays:
        raise UserError(f"{conf_path}: no run is called {run!r}; available: {', '.join(_names(files)) or 'none'}")
    values = asdict(Config())
    for layer in [sections for sections, _ in files] + overlays + [_overrides(overrides)]:
        values = _merge(Config, values, layer)
    values = _replace(values, {"expdir": str(expdir), "datadir": str(datadir)})
    return build_dataclass(Config, values | {"run": run}, "", str(conf_path))


def run_names(conf_path: str | Path) -> list[str]:
    """Return the names of the runs that a conf and its base define, in their order."""
    return _names(_files(conf_path))


def read_config(path: str | Path) -> Config:
    """Return the config that `dump` wrote; raises UserError as `load` does."""
    return build_dataclass(Config, check_values(Config, read_yaml(path), "", str(path)), "", str(path))


def dump_config(config: Config, path: str | Path) -> None:
    """Write the resolved config as YAML, whole or not at all; `read` gives an equal one."""
    part = Path(f"{path}.part")
    part.write_text(to_yaml(asdict(config)), encoding="utf-8")
    os.replace(part, path)


def check_options(cls: type, options: dict[str, Any], where: str) -> Any:
    """Return the dataclass `cls` made of a plugin's options, as strictly checked as the sections are.

    `where` opens the message of the UserError raised; a ValueError of the class itself becomes one too.
    """
    return build_dataclass(cls, check_values(cls, options, "", where), "", where)


def config_differences(a: Config, b: Config, ignore: Iterable[str] = ()) -> list[str]:
    """Return the dotted keys whose values differ, but for the keys in `ignore` and the keys under them."""
    ignored = tuple(f"{key}." for key in ignore)
    return [key for key in _differing(asdict(a), asdict(b), "") if not f"{key}.".startswith(ignored)]


def _differing(a: Any, b: Any, key: str) -> list[str]:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [key] if a != b else []
    missing = object()
    names = dict.fromkeys([*a, *b])
    return [found for n in names for found in _differing(a.get(n, missing), b.get(n, missing), join(key, n))]


def _files(conf_path: str | Path) -> list[tuple[dict[str, Any], dict[str, dict]]]:
    """Read a conf and its base: (sections, runs) of each, the base first."""
    values = check_values(_File, read_yaml(conf_path), "", str(conf_path))
    below = []
    if values.get("base") is not None:
        base_path = Path(conf_path).parent / values["base"]
        if not base_path.is_file():
            raise UserError(f"{conf_path}: base names {base_path}, which is no file; mend the path")
        base = check_values(_File, read_yaml(base_path), "", str(base_path))
        if base.get("base") is not None:
            raise UserError(f"{base_path}: is the base of {conf_path}, so it may not have a base of its own")
        below = [_split(base, base_path)]
    return [*below, _split(values, conf_path)]


def _split(values: dict[str, Any], path: str | Path) -> tuple[dict[str, Any], dict[str, dict]]:
    sections = {name: value for name, value in values.items() if name not in ("base", "runs")}
    runs = {name: {} if run is None else run for name, run in values.get("runs", {}).items()}
    return _layer(sections, "", path), {name: _layer(run, f"runs.{name}", path) for name, run in runs.items()}


def _layer(values: Any, key: str, where: str | Path) -> dict[str, Any]:
    if "run" in (layer := check_values(Config, values, key, str(where))):
        raise UserError(f"{where}: {join(key, 'run')} may not be set here; --run names the run")
    return layer


def _names(files: list[tuple[dict[str, Any], dict[str, dict]]]) -> list[str]:
    return list(dict.fromkeys(name for _, runs in files for name in runs))


def _overrides(items: Sequence[str]) -> dict[str, Any]:
    """Make one layer of `section.key=value` items."""
    layer: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        *sections, last = key.split(".")
        if not equals or not all([*sections, last]):
            raise UserError(f"{COMMAND_LINE}: {item!r} is not of the form section.key=value")
        place = layer
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or last in place:
            raise UserError(f"{COMMAND_LINE}: {key} is given twice; keep one")
        place[last] = text if _kind_at(key) is str else parse_yaml(text, f"{COMMAND_LINE} {key}")
    return _layer(layer, "", COMMAND_LINE)


def _kind_at(key: str) -> Any:
    kind: Any = Config
    for name in key.split("."):
        kind = kinds_of(kind).get(name, Any) if is_dataclass(kind) else Any
    return kind


def _merge(cls: Any, low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Lay `high` over `low`: mappings key by key, all else replaced; see arkasr.schema for `belongs_to`."""
    kinds = kinds_of(cls) if is_dataclass(cls) else {}
    merged = dict(low)
    for item in fields(cls) if is_dataclass(cls) else ():
        owner = item.metadata.get("belongs_to")
        if owner in high and high[owner] != low.get(owner):
            merged[item.name] = {}
    for name, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(kinds.get(name), merged[name], value) if both else value
    return merged


def _replace(value: Any, folders: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replace(item, folders) for name, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, folders) for item in value]
    if isinstance(value, str):
        return re.sub(r"\{(expdir|datadir)\}", lambda match: folders[match[1]], value)
    return value
