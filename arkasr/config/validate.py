"""Checks plain values against dataclasses, which are the schema. Every mismatch is a UserError.

A field may be declared as bool, int, float, str, Any, Literal, list[...], dict[str, ...], a dataclass, or any of these
`| None`. A field with `metadata={"formerly": "old_name"}` was renamed: the old key is an error that names the new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

from arkasr.errors import UserError

T = TypeVar("T")
LONGEST_SHOWN = 200  # characters of a value in a message
MOST = 2**63 - 1  # the largest whole number that torch and numpy take
_KINDS: dict[type, Mapping[str, Any]] = {}  # without it, `get_type_hints` takes most of the time of `load_config`
_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def join(*keys: str) -> str:
    """Join keys with dots.

    Args:
        *keys: Keys from the outside in. Empty ones are left out.

    Returns:
        The dotted key, such as "optim.lr".
    """
    return ".".join(key for key in keys if key)


def is_schema(kind: Any) -> TypeGuard[type[Any]]:
    """Return whether a declared type is a dataclass.

    Args:
        kind: A declared type.

    Returns:
        True for a dataclass, False for its instances and for all other types.
    """
    return isinstance(kind, type) and is_dataclass(kind)


def kinds_of(cls: type) -> Mapping[str, Any]:
    """Return the declared types of the keys of a schema dataclass.

    Args:
        cls: The dataclass.

    Returns:
        The types by key, in the order of declaration.
    """
    if cls not in _KINDS:
        hints = get_type_hints(cls)
        _KINDS[cls] = MappingProxyType({item.name: hints[item.name] for item in fields(cls) if item.init})
    return _KINDS[cls]


def check_values(kind: Any, value: Any, key: str, where: str) -> Any:
    """Check a value against its declared type.

    Args:
        kind: The declared type.
        value: The value, as read from YAML.
        key: Dotted key of the value, for messages. Empty at the top.
        where: Source of the value, for messages: a file or "command line".

    Returns:
        The value. Whole numbers become floats where a float is declared. Nothing else is converted. For a dataclass,
        the mapping of the keys that are present, so that layers can still be merged. `build_dataclass` makes the
        instance.

    Raises:
        UserError: The value has another type, or a key is unknown or was renamed.
        TypeError: The schema declares a type that is not allowed.
    """
    origin, args = get_origin(kind) or kind, get_args(kind)
    if is_schema(kind):
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


def build_dataclass(cls: type[T], values: dict[str, Any], key: str, where: str) -> T:
    """Make a dataclass instance, with nested dataclasses, from checked values.

    Args:
        cls: The dataclass.
        values: Values that `check_values` returned.
        key: Dotted key of the instance, for messages. Empty at the top.
        where: Source of the values, for messages.

    Returns:
        The instance.

    Raises:
        UserError: A key without default is missing, or the class refuses the values with a ValueError.
    """
    for item in fields(cls):  # type: ignore[arg-type]  # the caller passes a dataclass
        if item.init and item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise UserError(f"{where}: {join(key, item.name)} is missing and has no default; set it")
    kinds = kinds_of(cls)
    arguments = {name: _build(kinds[name], value, join(key, name), where) for name, value in values.items()}
    try:
        return cls(**arguments)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: {_with_key(cls, key, str(error))}") from error


def _with_key(cls: type, key: str, message: str) -> str:
    """Make "top_p must be ..." of section `rollout` into "rollout.top_p must be ..."."""
    starts_with_field = re.split(r"\W", message, maxsplit=1)[0] in kinds_of(cls)
    return join(key, message) if starts_with_field else f"{key}: {message}" if key else message


def _build(kind: Any, value: Any, key: str, where: str) -> Any:
    schema = next((option for option in (kind, *get_args(kind)) if is_schema(option)), None)
    return build_dataclass(schema, value, key, where) if schema and isinstance(value, dict) else value


def _check_scalar(kind: Any, value: Any, key: str, where: str) -> Any:
    if kind is Any and (value is None or type(value) in _SCALARS):
        return value
    if kind is not Any and kind not in _SCALARS:
        raise TypeError(f"{key}: a schema cannot declare the type {kind}; see arkasr.config.validate")
    if type(value) is int and abs(value) > MOST and kind in (int, float):
        raise UserError(f"{where}: {key} must be from -{MOST} to {MOST}, got {_shown(value)}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    hint = ""
    if kind is str and type(value) in _SCALARS:
        hint = "; put it in quotes"
    elif kind is int and type(value) is float and value.is_integer():
        hint = f"; write {int(value)}"
    raise UserError(f"{where}: {key} must be {_SCALARS.get(kind, 'a plain value')}, got {_shown(value)}{hint}")


def _check_literal(options: tuple[Any, ...], value: Any, key: str, where: str) -> Any:
    if any(type(value) is type(option) and value == option for option in options):
        return value
    close = get_close_matches(str(value), map(str, options), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"{where}: {key} must be one of {', '.join(map(_shown, options))}, got {_shown(value)}{hint}")


def _check_list(kind: Any, value: Any, key: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} must be a list such as [a, b], got {_shown(value)}")
    if is_schema(kind):
        raise TypeError(f"{key}: a schema cannot declare a list of dataclasses; see arkasr.config.validate")
    return [check_values(kind, item, f"{key}[{index}]", where) for index, item in enumerate(value)]


def _check_dict(kind: Any, value: Any, key: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} must be a mapping, got {_shown(value)}")
    return {name: check_values(kind, item, join(key, name), where) for name, item in value.items()}


def _check_keys(cls: type, values: Any, key: str, where: str) -> dict[str, Any]:
    kinds = kinds_of(cls)
    if not isinstance(values, dict):
        listed = ", ".join(_listed(cls))
        raise UserError(f"{where}: {key} must be a mapping with the keys {listed}, got {_shown(values)}")
    for name in values:
        if name not in kinds:
            raise UserError(f"{where}: {_wrong_key(cls, key, name)}")
    return {name: check_values(kinds[name], value, join(key, name), where) for name, value in values.items()}


def _listed(cls: type) -> dict[str, Any]:
    """Return the declared types of the keys that a message may suggest."""
    unlisted = {item.name for item in fields(cls) if item.metadata.get("unlisted")}
    return {name: kind for name, kind in kinds_of(cls).items() if name not in unlisted}


def _wrong_key(cls: type, key: str, name: str) -> str:
    """Return the message for a key that is not in `cls`.

    It names the new name of the key, else a key with a similar name, else a section that has this key, else all keys.
    """
    renamed = [item.name for item in fields(cls) if item.metadata.get("formerly") == name]
    if renamed:
        return f"{join(key, name)} is now called {join(key, renamed[0])}"
    kinds = _listed(cls)
    in_sections = [join(section, name) for section, kind in kinds.items() if is_schema(kind) and name in kinds_of(kind)]
    close = get_close_matches(name, kinds, 1) or in_sections
    hint = f"valid here: {', '.join(kinds)}" if kinds else "no key is valid here"
    return f"unknown key {join(key, _plain(name))}; {f'did you mean {join(key, close[0])}?' if close else hint}"


def _plain(name: str) -> str:
    """Return a key as it is, but quoted and cut if it is no usual key."""
    return name if re.fullmatch(r"[\w.-]{1,80}", name) else _shown(name)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = "null" if value is None else _number(value) if type(value) is int else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _number(value: int) -> str:
    return f"a number of about {int(value.bit_length() * 0.30103) + 1} digits" if abs(value) > MOST else str(value)
