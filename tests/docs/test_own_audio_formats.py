"""The section "Formats" of docs/own_audio.md names the columns, the examples and the reasons that the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from arkasr.corpora.layouts import table_rows, table_times, table_values
from arkasr.corpora.layouts.columns import DEFAULT_NAMES, ColumnMap
from arkasr.corpora.layouts.table import NO_PART
from arkasr.corpora.layouts.table_entries import EntryMaker

PAGE = (Path(__file__).parents[2] / "docs" / "own_audio.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Formats\n")[1].split("\n## ")[0]
EXAMPLES = re.findall(r"`(\{\"[^`]*\})`", SECTION)


def test_section_lists_the_default_names_of_every_field():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", SECTION, re.MULTILINE)
    listed = {field: tuple(re.findall(r"`(\w+)`", names)) for field, names in rows if field in DEFAULT_NAMES}
    assert listed == DEFAULT_NAMES


@pytest.mark.parametrize("example", EXAMPLES)
def test_section_shows_rows_that_can_be_read(example):
    maker = EntryMaker(Path("/c/train.jsonl"), Path("/c"), ColumnMap({}))
    entry = maker.entry("train", 1, json.loads(example))
    assert (entry.reason, entry.text) == ("", None if '"text": ""' in example else "hello")


def test_section_shows_all_formats():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("module", [table_rows, table_times, table_values])
def test_section_lists_every_reason(module):
    reasons = [
        value for name, value in vars(module).items() if re.fullmatch("[A-Z_]{3,}", name) and isinstance(value, str)
    ]
    assert len(reasons) >= 4 and [reason for reason in [*reasons, NO_PART] if f"`{reason}`" not in SECTION] == []
