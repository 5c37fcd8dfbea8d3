"""Writes docs/config.md: every key of a configuration with its type, default and meaning, read off arkasr/schema.py.

Run `python docs/make_config.py` after a change of the schema; tests/test_docs.py fails until that is done.
"""

from __future__ import annotations

import ast
import io
import json
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from arkasr.config import schema
from arkasr.config.validate import kinds_of
from arkasr.plugins.loader import KINDS, Entry, load_plugins
from arkasr.plugins.registry import BUILTINS

PAGE = Path(__file__).with_name("config.md")
HEAD = """\
# Every key of a configuration

Made by `python docs/make_config.py` from the dataclasses of `arkasr/schema.py`; do not edit it here. How the layers of
a configuration are merged stands in the [README](../README.md#configuration).

A configuration may hold, beside these keys, `base:` (the path of one YAML below it, relative to itself) and `runs:` (a
mapping from a run's name to what that run changes; any key of this page but `run` may stand there). `{expdir}` and
`{datadir}` are replaced in every text value. An unknown, repeated or mistyped key is an error that names the nearest
valid one. On the command line a key is written with its section, such as `optim.lr=1e-3`."""
NAMES = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any"}
SECTION_OF = {"teacher": "teacher", "token_mapper": "mapper", "loss": "loss"}


def comments(source: str) -> dict[int, str]:
    """Return the comments of a source by their line number, from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def meanings(source: str) -> dict[str, dict[str, str]]:
    """Return the comment of each field of each class; a field's comment stands on one of the field's own lines."""
    said = comments(source)
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {
        node.name: {
            item.target.id: " ".join(said[line] for line in range(item.lineno, item.end_lineno + 1) if line in said)
            for item in node.body
            if isinstance(item, ast.AnnAssign)
        }
        for node in classes
    }


def type_name(kind: Any) -> str:
    """Return a declared type as a reader of YAML says it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        *others, last = (f"`{option}`" for option in args)
        return f"{', '.join(others)} or {last}"
    if origin is list:
        return f"list of {type_name(args[0])}s"
    if origin is dict:
        return "mapping"
    return NAMES[kind]


def value(given: Any) -> str:
    """Return a default as it would be written in YAML."""
    if isinstance(given, str):
        return f"`{given}`" if given else '`""`'
    return f"`{json.dumps(given)}`"


def table(made: Any, section: str, said: dict[str, str]) -> Iterator[str]:
    """Yield the rows of one dataclass's own keys; `made` is an instance with the defaults."""
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    kinds = kinds_of(type(made))
    for item in fields(made):
        if not is_dataclass(kinds[item.name]):
            key, default = ".".join(filter(None, (section, item.name))), value(getattr(made, item.name))
            yield f"| `{key}` | {type_name(kinds[item.name])} | {default} | {said.get(item.name, '')} |"


def paragraph(docstring: str) -> str:
    return textwrap.fill(" ".join(docstring.split()), 118)


def explained(docstring: str) -> dict[str, str]:
    """Return what a docstring of the form "one: its meaning; two: its meaning." says of each option."""
    parts = (part.partition(": ") for part in " ".join(docstring.split()).rstrip(".").split("; "))
    return {name: meaning for name, colon, meaning in parts if colon}


def plugin(entry: Entry, made: Any) -> str:
    """Describe the options of one plugin that ships inside."""
    title = f"### `{SECTION_OF[entry.kind]}.name: {entry.name}`\n\n{paragraph(entry.factory.__doc__)}"
    if not fields(made):
        return f"{title}\n\nIt takes no options."
    rows = "\n".join(table(made, f"{SECTION_OF[entry.kind]}.options", explained(type(made).__doc__)))
    return f"{title}\n\n{rows}"


def builtins() -> list[Entry]:
    """Return what the plugins that ship inside register, whatever else is installed."""
    entries, _ = load_plugins(BUILTINS)
    inside = (entry for entry in entries if entry.source.module in BUILTINS)
    return sorted(inside, key=lambda entry: (list(KINDS).index(entry.kind), entry.name))


def page() -> str:
    """Return the text of docs/config.md."""
    source = Path(schema.__file__).read_text(encoding="utf-8")
    said, config = meanings(source), schema.Config()
    parts = [HEAD, "## The run\n\n" + "\n".join(table(config, "", said["Config"]))]
    for name, kind in kinds_of(schema.Config).items():
        if is_dataclass(kind):
            rows = "\n".join(table(getattr(config, name), name, said[kind.__name__]))
            parts.append(f"## `{name}`\n\n{paragraph(kind.__doc__)}\n\n{rows}")
    parts.append("## Plugins that ship inside\n\n`arkasr plugins` lists these and the installed ones.")
    parts += [plugin(entry, entry.config()) for entry in builtins()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
