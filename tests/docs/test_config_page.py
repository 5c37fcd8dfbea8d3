"""The generated pages under docs/ are what their generators make of the source today, and say what the source says."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

from arkasr.config import schema

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_config", DOCS / "make_config.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(config: Any, section: str = "") -> dict[str, Any]:
    """Return every dotted key of a config with its default."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        key, value = f"{section}{item.name}", getattr(config, item.name)
        found |= leaves(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value}
    return found


def cells(text: str) -> dict[str, list[str]]:
    """Return the rows of the page's tables by their key: type, default, meaning."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]
    assert all(len(row) == 4 for row in rows)
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_config_page_is_what_the_schema_makes(generator):
    assert (DOCS / "config.md").read_text(encoding="utf-8") == generator.page(), "run python docs/make_config.py"


def test_the_config_page_holds_every_key_with_its_default():
    rows = cells((DOCS / "config.md").read_text(encoding="utf-8"))
    for key, value in leaves(schema.Config()).items():
        expected = (value or '""') if isinstance(value, str) else json.dumps(value)
        assert rows[key][1] == f"`{expected}`", key
    plugin_options = {key for key in rows if ".options." in key}
    assert set(rows) - plugin_options == set(leaves(schema.Config()))
    assert {"teacher.options.path", "loss.options.temperature"} <= plugin_options


def test_what_is_said_of_a_key_is_its_comment_in_the_source(generator):
    source = """
from dataclasses import dataclass
class Other:
    b: int = 3
@dataclass
class One:
    a: int = 1  # apples
    b: str = (
        "#x"  # a bag
    )
    c: float = 2.0
"""
    assert generator.meanings(source) == {"Other": {"b": ""}, "One": {"a": "apples", "b": "a bag", "c": ""}}


@pytest.mark.parametrize(
    ("kind", "said"),
    [(int, "whole number"), (list[float], "list of numbers"), (dict[str, Any], "mapping"), (bool, "true or false")],
)
def test_types_are_said_as_in_yaml(generator, kind, said):
    assert generator.type_name(kind) == said


def test_choices_are_listed(generator):
    assert generator.type_name(Literal["score", "skip", "reference"]) == "`score`, `skip` or `reference`"


def test_options_of_a_plugin_take_their_meaning_from_its_docstring(generator):
    assert generator.explained("path: folder or Hub id; dtype: of its weights.") == {
        "path": "folder or Hub id",
        "dtype": "of its weights",
    }
    assert generator.explained("This mapper has no options.") == {}
