"""docs/config.md is up to date with the schema, and the generator reads types, defaults and meanings correctly."""

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
    """Return every dotted key of a configuration with its default."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        key, value = f"{section}{item.name}", getattr(config, item.name)
        found |= leaves(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value}
    return found


def cells(text: str) -> dict[str, list[str]]:
    """Return the rows of the page's tables by key: type, default, meaning."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:3] == "| `"]
    assert all(len(row) == 4 for row in rows)
    return {row[0].strip("`"): row[1:] for row in rows}


def test_config_page_is_up_to_date(generator):
    assert (DOCS / "config.md").read_text(encoding="utf-8") == generator.page(), "run python docs/make_config.py"


def test_config_page_has_every_key_with_default_and_meaning():
    rows = cells((DOCS / "config.md").read_text(encoding="utf-8"))
    for key, value in leaves(schema.Config()).items():
        expected = (value or '""') if isinstance(value, str) else json.dumps(value)
        assert rows[key][1] == f"`{expected}`", key
    assert [key for key, row in rows.items() if not row[2]] == []
    plugin_options = {key for key in rows if ".options." in key}
    assert set(rows) - plugin_options == set(leaves(schema.Config()))
    assert {"teacher.options.path", "loss.options.temperature"} <= plugin_options


class Base:
    """A base.

    Attributes:
        a: Apples.
        b: A bag of
            several: things.
    """


class Derived(Base):
    """A derived class.

    More text: with a list.

    - item

    Attributes:
        b: Bananas.
        c: Cherries, `c: x`.

    Raises:
        UserError: never.
    """


def test_meanings_are_read_from_attributes_of_class_and_bases(generator):
    assert generator.meanings(Base) == {"a": "Apples.", "b": "A bag of several: things."}
    assert generator.meanings(Derived) == {"a": "Apples.", "b": "Bananas.", "c": "Cherries, `c: x`."}


def test_doc_parts_separates_text_from_sections(generator):
    text, sections = generator.doc_parts(Derived)
    assert text == "A derived class.\n\nMore text: with a list.\n\n- item"
    assert list(sections) == ["Attributes", "Raises"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [(int, "whole number"), (list[float], "list of numbers"), (dict[str, Any], "mapping"), (bool, "true or false")],
)
def test_type_name_uses_terms_of_yaml(generator, kind, name):
    assert generator.type_name(kind) == name


def test_type_name_lists_choices(generator):
    assert generator.type_name(Literal["score", "skip", "reference"]) == "`score`, `skip` or `reference`"
