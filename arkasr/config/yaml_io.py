"""Reads and writes YAML strictly. Every error is a UserError that names the file and the line.

Plain scalars follow YAML 1.2. Only `true` and `false` are booleans, and `1e-4` is a number. `no`, `010`, `1:30` and
dates are text. A repeated key is an error. Sizes are bounded: a few lines with aliases could otherwise expand to more
values than fit into memory.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from arkasr.errors import UserError

_INT = r"[-+]?(?:0|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.inf)"
_PLAIN = {"null": r"~|null|", "bool": r"true|false", "int": _INT, "float": _FLOAT}
_SCALAR_TYPES = {"null", "bool", "int", "float", "str"}
_NODE_TYPES = {yaml.ScalarNode: _SCALAR_TYPES, yaml.SequenceNode: {"seq"}, yaml.MappingNode: {"map"}}
MOST_BYTES = 2**18  # of a file; the largest configuration of the recipes has 3 KiB
MOST_VALUES = 20_000  # after aliases are expanded
MOST_DIGITS = 1000  # of a whole number
MOST_LEVELS = 50  # of nested mappings and lists


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}
    level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.level += 1
        if self.level > MOST_LEVELS:
            problem = f"nested too deeply; at most {MOST_LEVELS} levels are allowed"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=parent.start_mark if parent else None)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


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
        UserError: The file cannot be read, is too large, is not UTF-8 YAML, repeats a key, or is not a mapping.
    """
    try:
        with Path(path).open("rb") as file:  # bounded, because a device such as /dev/zero never ends
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: has more than {MOST_BYTES} bytes, which no configuration needs; check the path")
        text = content.decode("utf-8")
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
        UserError: The text is not valid YAML, repeats a key, has a key that is not text, has an unknown tag or a number
            that is too large, is nested too deeply, or expands to too many values.
    """
    try:
        node = _composed(text)
        return None if node is None else _Values(where).construct(node, "")
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem}{hint}") from error
    except RecursionError as error:
        raise UserError(f"{where}: not valid YAML: an alias inside its own anchor; remove it") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


@lru_cache(maxsize=32)
def _composed(text: str) -> yaml.Node | None:
    """Return the nodes of a text, which must not be changed. A sweep reads the same file for each of its runs."""
    return _Loader(text).get_single_node()


def to_yaml(values: dict[str, Any]) -> str:
    """Write a mapping as YAML.

    Args:
        values: Plain values: mappings, lists, text, numbers, booleans and None.

    Returns:
        YAML for which `parse_yaml` returns an equal mapping.
    """
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def to_flow(value: Any) -> str:
    """Write a plain value as YAML in one line, unless a text has several lines.

    Args:
        value: See `to_yaml`.

    Returns:
        YAML for which `parse_yaml` returns an equal value.
    """
    written = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=1e9)
    return str(written).removesuffix("...\n").strip("\n")


class _Values:
    """Makes plain values of the nodes of one document. Aliases are expanded, so all values are counted."""

    def __init__(self, where: str):
        self.where, self.scalars, self.counter = where, _Loader(""), count(1)

    def construct(self, node: yaml.Node, key: str) -> Any:
        """Return the value of the node at the dotted `key`."""
        line = node.start_mark.line + 1
        if next(self.counter) > MOST_VALUES:
            raise UserError(f"{self.where}: expands to more than {MOST_VALUES} values; remove aliases (`*name`)")
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _NODE_TYPES[type(node)]:
            raise UserError(f"{self.where}, line {line}: unknown tag {node.tag}; remove it")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.construct(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
        name, kind = key or "the value", node.tag.rpartition(":")[2]
        if kind == "int" and len(node.value) > MOST_DIGITS:  # Python reads no more than 4300
            raise UserError(f"{self.where}, line {line}: {name} is too large: a number of {len(node.value)} digits")
        try:
            value = self.scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, KeyError, IndexError) as error:
            what = f"not valid YAML: {_short(repr(node.value))} is not of type {kind}"
            raise UserError(f"{self.where}, line {line}: {name} is {what}; correct it") from error
        if isinstance(value, float) and math.isinf(value) and "inf" not in node.value.lower():
            what = f"{name} is too large: {_short(node.value)}; write .inf for no limit"
            raise UserError(f"{self.where}, line {line}: {what}")
        return value

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        """Return the node's mapping, whose keys must be texts and differ."""
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            name, line = self.construct(name_node, key), name_node.start_mark.line + 1
            if not isinstance(name, str):
                what = f"a key must be text, got {_short(repr(name))}; put it in quotes"
                raise UserError(f"{self.where}, line {line}: {what}")
            dotted = f"{key}.{name}" if key else name
            if name in values:
                what = f"{_short(dotted)} is set twice (first on line {lines[name]}); keep one"
                raise UserError(f"{self.where}, line {line}: {what}")
            values[name], lines[name] = self.construct(value_node, dotted), line
        return values


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}... ({len(text)} characters)"
