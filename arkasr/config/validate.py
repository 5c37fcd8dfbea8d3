"""Typed values from plain ones: dataclasses are the schema, and every misfit is a UserError.

A schema may declare bool, int, float, str, Any, Literal, list[...], dict[str, ...], `... | None` and dataclasses.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from arkasr.errors import UserError

_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def join(*keys: str) -> str:
    """Return the dotted key of its parts, leaving out empty ones."""
    return ".".join(key for key in keys if key)


@lru_cache
def kinds_of(cls: type) -> dict[str, Any]:
    """Return the declared type of each key of a schema dataclass."""
    hints = get_type_hints(cls)
    return {item.name: hints[item.name] for item in fields(cls) if item.init}


def check_values(kind: Any, value: Any, key: str, where: str) -> Any:
    """Return `value` as the declared type `kind`, or raise a UserError that names `where`, the dotted key and the mend.

    A dataclass comes back as the mapping of the keys that were given, so that layers can still be merged; `build`
    makes the instance. Whole numbers become floats where a float is declared; nothing else is converted.
    """
    origin, args = get_origin(kind) or kind, get_args(kind)
    if is_dataclass(kind):
        return _check_keys(kind, value, key, where)
    if origin in (Union, UnionType) and NoneType in args and len(args) == 2:
        return None if value is None else check_values(args[args[0] is NoneType], value, key, where)
    if origin is Literal:
        return _check_literal(args, value, key, where)
    if origin is list or (kind is Any and isinstance(value, list)):
        return _check_list(args[0] if args else Any, value, key, where)
    if origin is dict or (kind is Any and isinstance(value, dict)):
        return _check_dict(args[1] if args else Any, value, key, where)
    return _check_scalar(kind, value, key, where)


def build_dataclass(cls: type, values: dict[str, Any], key: str, where: str) -> Any:
    """Make the dataclass instance of checked values.

    Raises UserError for a missing key that has no default, and for a ValueError of the class's own checks.
    """
    for item in fields(cls):
        if item.init and item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise UserError(f"{where}: {join(key, item.name)} is missing and has no default; set it")
    kinds = kinds_of(cls)
    made = {name: _build(kinds[name], value, join(key, name), where) for name, value in values.items()}
    try:
        return cls(**made)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {key}{': ' if key else ''}{error}") from error


def _build(kind: Any, value: Any, key: str, where: str) -> Any:
    schema = next((option for option in (kind, *get_args(kind)) if is_dataclass(option)), None)
    return build_dataclass(schema, value, key, where) if schema and isinstance(value, dict) else value


def _check_scalar(kind: Any, value: Any, key: str, where: str) -> Any:
    if kind is Any and (value is None or type(value) in _SCALARS):
        return value
    if kind is not Any and kind not in _SCALARS:
        raise TypeError(f"{key}: the type {kind} cannot stand in a schema; see arkasr.typed")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    mend = ""
    if kind is str and type(value) in _SCALARS:
        mend = "; put it in quotes"
    elif kind is int and type(value) is float and value.is_integer():
        mend = f"; write {int(value)}"
    raise UserError(f"{where}: {key} must be {_SCALARS.get(kind, 'a plain value')}, not {_shown(value)}{mend}")


def _check_literal(options: tuple, value: Any, key: str, where: str) -> Any:
    if any(type(value) is type(option) and value == option for option in options):
        return value
    close = get_close_matches(str(value), map(str, options), 1)
    mend = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"{where}: {key} must be one of {', '.join(map(_shown, options))}, not {_shown(value)}{mend}")


def _check_list(kind: Any, value: Any, key: str, where: str) -> list:
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} must be a list such as [a, b], not {_shown(value)}")
    if is_dataclass(kind):
        raise TypeError(f"{key}: a list of dataclasses cannot stand in a schema; see arkasr.typed")
    return [check_values(kind, item, f"{key}[{index}]", where) for index, item in enumerate(value)]


def _check_dict(kind: Any, value: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} must hold keys of its own, not {_shown(value)}")
    return {name: check_values(kind, item, join(key, name), where) for name, item in value.items()}


def _check_keys(cls: type, values: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {key} must hold keys of its own ({', '.join(kinds_of(cls))}), not {_shown(values)}")
    for name in values:
        if name not in kinds_of(cls):
            raise UserError(f"{where}: unknown key {join(key, name)}{_instead(cls, key, name)}")
    return {name: check_values(kinds_of(cls)[name], value, join(key, name), where) for name, value in values.items()}


def _instead(cls: type, key: str, name: str) -> str:
    """Point to the nearest key: one spelt alike beside it, or the same in a section, else all beside it."""
    kinds = kinds_of(cls)
    below = [join(section, name) for section, kind in kinds.items() if is_dataclass(kind) and name in kinds_of(kind)]
    close = get_close_matches(name, kinds, 1) or below
    if close:
        return f"; did you mean {join(key, close[0])}?"
    return f"; valid here: {', '.join(kinds)}" if kinds else "; no key is valid here"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)
