"""Reads and writes YAML strictly. Every error is a UserError that names the file and the line.

Plain scalars follow YAML 1.2. Only `true` and `false` are booleans, and `1e-4` is a number. `no`, `010`, `1:30` and
dates are text. A repeated key is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from arkasr.errors import UserError

_INT = r"[-+]?(?:0|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.inf)"
_PLAIN = {"null": r"~|null|", "bool": r"true|false", "int": _INT, "float": _FLOAT}
_TYPES = {"null", "bool", "int", "float", "str", "seq", "map"}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # These Unicode line breaks need quotes: a plain scalar would be folded at them.
    quoted = any(sign in text for sign in "\x85\u2028\u2029\ufeff")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)
for _name, _pattern in _PLAIN.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), None)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that contains a mapping.

    Args:
        path: The file.

    Returns:
        The mapping, empty for an empty file.

    Raises:
        UserError: The file cannot be read, is not UTF-8 YAML, repeats a key, or is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict | None):
        raise UserError(f"{path}: must be a mapping (`key: value` lines), got a {type(value).__name__}")
    return value or {}


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML.

    Args:
        text: The YAML.
        where: Source of the text, for messages.

    Returns:
        The value, None for empty text.

    Raises:
        UserError: The text is not valid YAML, repeats a key, has a key that is not text, or has an unknown tag.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, "", where)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid YAML: nested too deeply, or an alias inside its own anchor") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def to_yaml(values: dict[str, Any]) -> str:
    """Write a mapping as YAML.

    Args:
        values: Plain values: mappings, lists, text, numbers, booleans and None.

    Returns:
        YAML for which `parse_yaml` returns an equal mapping.
    """
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _construct(loader: _Loader, node: yaml.Node, key: str, where: str) -> Any:
    """Return the value of the node at the dotted `key`."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _TYPES:
        raise UserError(f"{where}, line {node.start_mark.line + 1}: unknown tag {node.tag}; remove it")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, key, where)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, f"{key}[{index}]", where) for index, item in enumerate(node.value)]
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, key: str, where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for name_node, value_node in node.value:
        name, line = _construct(loader, name_node, key, where), name_node.start_mark.line + 1
        if not isinstance(name, str):
            raise UserError(f"{where}, line {line}: a key must be text, got {name!r}; put it in quotes")
        dotted = f"{key}.{name}" if key else name
        if name in values:
            raise UserError(f"{where}, line {line}: {dotted} is set twice (first on line {lines[name]}); keep one")
        values[name], lines[name] = _construct(loader, value_node, dotted, where), line
    return values
