"""YAML without surprises: every mistake is a UserError that names the file and the line.

Plain scalars follow YAML 1.2: only `true` and `false` are booleans, `1e-4` is a number, while `no`, `010`, `1:30`
and dates are text. A repeated key is an error.
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
    yaml_implicit_resolvers: dict = {}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict = {}


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # unquoted, these line breaks of Unicode would be folded into a blank
    quoted = any(sign in text for sign in "\x85\u2028\u2029\ufeff")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)
for _name, _pattern in _PLAIN.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), None)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds ({} for an empty file).

    Raises UserError for a file that cannot be read, is not UTF-8 YAML, repeats a key or holds no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict | None):
        raise UserError(f"{path}: must hold `key: value` lines, not a {type(value).__name__}")
    return value or {}


def parse_yaml(text: str, where: str) -> Any:
    """Return the value that YAML text stands for; `where` opens the message of the UserError raised."""
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
    """Write a mapping as YAML that `parse_yaml` reads back equal."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _construct(loader: _Loader, node: yaml.Node, key: str, where: str) -> Any:
    """Make the value of a node that stands at the dotted `key`."""
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _TYPES:
        raise UserError(f"{where}, line {node.start_mark.line + 1}: the tag {node.tag} is not known; leave it out")
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
            raise UserError(f"{where}, line {line}: a key must be text, not {name!r}; put it in quotes")
        dotted = f"{key}.{name}" if key else name
        if name in values:
            raise UserError(f"{where}, line {line}: {dotted} is given twice (first on line {lines[name]}); keep one")
        values[name], lines[name] = _construct(loader, value_node, dotted, where), line
    return values
