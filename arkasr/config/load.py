"""Loads configurations: layers of YAML over the defaults of the schema. Every key is checked.

Later layers have precedence over earlier ones:

1. the defaults of the dataclasses,
2. the sections of the YAML file that `base:` names (one level),
3. the sections of the YAML file,
4. `runs.<run>` of the base file, then of the file,
5. `section.key=value` from the command line.

A null in `model.sizes` removes the key that earlier layers set there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from arkasr.config.schema import Config
from arkasr.config.validate import build_dataclass, check_values, is_schema, join, kinds_of
from arkasr.config.yaml_io import parse_yaml, read_yaml, to_flow, to_yaml
from arkasr.errors import UserError
from arkasr.utils.files import write_text
from arkasr.utils.redact import secrets_in_addresses

COMMAND_LINE = "command line"
T = TypeVar("T")
_RUN_NAME = re.compile(r"\w[\w.-]*")
_Layers = tuple[dict[str, Any], dict[str, dict[str, Any]]]  # the sections of a file, and the changes of its runs


@dataclass
class _File(Config):
    """The keys of a configuration file: the sections, and two more."""

    base: str | None = None  # path of the YAML file below this one, relative to this file
    runs: dict[str, Any] = field(default_factory=dict)  # run name -> its changes to the sections


def load_config(conf_path: str | Path, run: str, expdir: str, datadir: str, overrides: Sequence[str] = ()) -> Config:
    """Load the configuration of one run.

    Args:
        conf_path: Configuration file.
        run: Name of the run, a key of `runs`.
        expdir: Experiment directory. It replaces `{expdir}` in every text value.
        datadir: Data directory. It replaces `{datadir}` in every text value.
        overrides: `section.key=value` items from the command line, in any order.

    Returns:
        The configuration with all layers merged.

    Raises:
        UserError: A key is unknown, was renamed, is set twice or has a wrong value, there is no such run, or an address
            holds a password. The message names the file or the command line.
    """
    files = _files(conf_path)
    overlays = [runs[run] for _, runs in files if run in runs]
    if not overlays:
        hint = "; only --scale mini and study train a teacher" if run == "teacher" else ""
        names = ", ".join(_names(files)) or "none"
        raise UserError(f"{conf_path}: no run is called {run!r}; available: {names}{hint}")
    values = asdict(Config())
    for layer in [sections for sections, _ in files] + overlays + [_overrides(overrides)]:
        values = _merge(Config, values, layer)
    values = _replace(values, {"expdir": str(expdir), "datadir": str(datadir)})
    where = f"{conf_path} or {COMMAND_LINE}" if overrides else str(conf_path)
    for key, address in secrets_in_addresses(values):
        raise UserError(
            f"{where}: {key} {address}: holds a password or a key, which config.yaml and results would show; remove it "
            "and give it by an environment variable (see the plugin's documentation, such as `api_key_env`)"
        )
    return build_dataclass(Config, values | {"run": run}, "", where)


def run_names(conf_path: str | Path) -> list[str]:
    """Return the names of the runs of a configuration file.

    Args:
        conf_path: Configuration file.

    Returns:
        The names in the order of definition, those of the base file first.

    Raises:
        UserError: The file or its base is wrong.
    """
    return _names(_files(conf_path))


def read_config(path: str | Path) -> Config:
    """Read a configuration that `dump_config` wrote.

    Args:
        path: The file, `<expdir>/<run>/config.yaml`.

    Returns:
        The configuration.

    Raises:
        UserError: The file is empty, or as in `load_config`.
    """
    values = read_yaml(path)
    if not values:
        raise UserError(f"{path}: is empty; restore it, or delete the folder of this run and train it again")
    return build_dataclass(Config, check_values(Config, values, "", str(path)), "", str(path))


def dump_config(config: Config, path: str | Path) -> None:
    """Write a configuration as YAML. A failure leaves no incomplete file at `path`.

    Args:
        config: The configuration. `read_config` returns an equal one.
        path: The file to write.
    """
    write_text(Path(path), to_yaml(asdict(config)))


def is_run_name(name: str) -> bool:
    """Return whether a run can have this name. The run's folder in the experiment directory has the same name.

    Args:
        name: Any text.

    Returns:
        True for letters, digits, `_`, `-` and `.`, if the first one is a letter, a digit or `_`.
    """
    return bool(_RUN_NAME.fullmatch(name))


def check_options(cls: type[T], options: dict[str, Any], where: str) -> T:
    """Check the options of a plugin as strictly as the sections.

    Args:
        cls: The plugin's options dataclass.
        options: The options, as in a configuration.
        where: Name of the plugin, for messages.

    Returns:
        An instance of `cls`.

    Raises:
        UserError: A key is unknown, was renamed, is missing or has a wrong type, or `cls` raises a ValueError.
    """
    return build_dataclass(cls, check_values(cls, options, "", where), "", where)


def config_differences(a: Config, b: Config, ignore: Iterable[str] = ()) -> list[str]:
    """Compare two configurations.

    Args:
        a: One configuration.
        b: The other configuration.
        ignore: Dotted keys to leave out, with all keys below them.

    Returns:
        The dotted keys whose values differ.
    """
    ignored = tuple(f"{key}." for key in ignore)
    return [key for key in _differing(asdict(a), asdict(b), "") if not f"{key}.".startswith(ignored)]


def _differing(a: Any, b: Any, key: str) -> list[str]:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [key] if a != b else []
    missing = object()
    names = dict.fromkeys([*a, *b])
    return [found for n in names for found in _differing(a.get(n, missing), b.get(n, missing), join(key, n))]


def _files(conf_path: str | Path) -> list[_Layers]:
    """Read a configuration file and its base. The base comes first."""
    values = check_values(_File, read_yaml(conf_path), "", str(conf_path))
    below = []
    if values.get("base") is not None:
        base_path = Path(conf_path).parent / values["base"]
        if not base_path.is_file():
            raise UserError(f"{conf_path}: base: {base_path} is not a file; correct the path")
        base = check_values(_File, read_yaml(base_path), "", str(base_path))
        if base.get("base") is not None:
            raise UserError(f"{base_path}: the base of {conf_path} cannot have a base itself; remove its key base")
        below = [_split(base, base_path)]
    return [*below, _split(values, conf_path)]


def _split(values: dict[str, Any], path: str | Path) -> _Layers:
    sections = {name: value for name, value in values.items() if name not in ("base", "runs")}
    runs = {name: {} if run is None else run for name, run in values.get("runs", {}).items()}
    for name in runs:
        if not is_run_name(name):
            allowed = "letters, digits, `_`, `-` and `.` (not first), because runs are folders"
            raise UserError(f"{path}: {join('runs', repr(name)[:100])} is not a name of a run; use {allowed}")
    return _layer(sections, "", path), {name: _layer(run, f"runs.{name}", path) for name, run in runs.items()}


def _layer(values: Any, key: str, where: str | Path) -> dict[str, Any]:
    layer: dict[str, Any] = check_values(Config, values, key, str(where))
    if "run" in layer:
        raise UserError(f"{where}: {join(key, 'run')} cannot be set here; use --run")
    _refuse_rivals(Config, layer, key, where)
    return layer


def _refuse_rivals(cls: Any, layer: dict[str, Any], key: str, where: str | Path) -> None:
    """Refuse a layer that sets two keys of one group `one_of` (see `arkasr.config.schema`)."""
    for names in _groups(cls).values():
        above = [join(key, name) for name in names if layer.get(name)]
        if len(above) > 1:
            raise UserError(f"{where}: {' and '.join(above)} exclude each other; keep one")
    for name, kind in kinds_of(cls).items():
        if is_schema(kind) and name in layer:
            _refuse_rivals(kind, layer[name], join(key, name), where)


def _groups(cls: Any) -> dict[str, list[str]]:
    """Return the names of the fields of each group `one_of`."""
    groups: dict[str, list[str]] = {}
    for item in fields(cls):
        if group := item.metadata.get("one_of"):
            groups.setdefault(group, []).append(item.name)
    return groups


def _names(files: list[_Layers]) -> list[str]:
    return list(dict.fromkeys(name for _, runs in files for name in runs))


def _overrides(items: Sequence[str]) -> dict[str, Any]:
    """Return the layer of `section.key=value` items."""
    layer: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        *sections, last = key.split(".")
        if not equals or not all([*sections, last]):
            raise UserError(f"{COMMAND_LINE}: expected section.key=value, got {item!r}")
        mapping: Any = layer
        for section in sections:
            mapping = mapping.setdefault(section, {}) if isinstance(mapping, dict) else mapping
        if not isinstance(mapping, dict) or last in mapping:
            raise UserError(f"{COMMAND_LINE}: {key} is set twice; keep one")
        mapping[last] = text if _kind_at(key) is str else parse_yaml(text, f"{COMMAND_LINE} {key}")
    return _layer(layer, "", COMMAND_LINE)


def override_word(key: str, value: Any) -> str:
    """Write an override as on the command line.

    Args:
        key: Dotted key of the configuration.
        value: Plain value: a mapping, a list, text, a number, a boolean or None.

    Returns:
        `key=value`. `load_config` reads the same value from it.
    """
    return f"{key}={value if _kind_at(key) is str and isinstance(value, str) else to_flow(value)}"


def _kind_at(key: str) -> Any:
    kind: Any = Config
    for name in key.split("."):
        kind = kinds_of(kind).get(name, Any) if is_schema(kind) else Any
    return kind


def _merge(cls: Any, low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Merge `high` over `low`: mappings by key, other values replaced.

    See `arkasr.config.schema` for `belongs_to`, `one_of` and `null_unsets`.
    """
    kinds = kinds_of(cls) if is_schema(cls) else {}
    merged = dict(low)
    for item in fields(cls) if is_schema(cls) else ():
        owner = item.metadata.get("belongs_to")
        if owner in high and high[owner] != low.get(owner):
            merged[item.name] = {}
    for names in _groups(cls).values() if is_schema(cls) else ():
        if any(high.get(name) for name in names):
            merged |= {name: type(merged[name])(0) for name in names if name in merged}
    for name, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(kinds.get(name), merged[name], value) if both else value
    for item in fields(cls) if is_schema(cls) else ():
        if item.metadata.get("null_unsets") and isinstance(merged.get(item.name), dict):
            merged[item.name] = _without_nulls(merged[item.name])
    return merged


def _without_nulls(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def _replace(value: Any, folders: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replace(item, folders) for name, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, folders) for item in value]
    if isinstance(value, str):
        return re.sub(r"\{(expdir|datadir)\}", lambda match: folders[match[1]], value)
    return value
