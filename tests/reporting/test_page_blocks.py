"""Blocks of the page: how the Markdown of RESULTS.md is read."""

from __future__ import annotations

import pytest

from arkasr.reporting.markdown import markdown_table
from arkasr.reporting.page.blocks import Section, blocks, spans, table


def text(line) -> str:
    return "".join(span.text for span in line)


def test_blocks_read_what_markdown_table_writes():
    header, rows = ["Model", "a | b", "c"], [["x|y\\", "1.5", "text"], ["<b>`code`</b>", "-", "| |"]]
    (found,) = blocks(markdown_table(header, rows))
    assert [text(cell) for cell in found.header] == header
    assert [[text(cell).replace("`", "") for cell in row] for row in found.rows] == [
        [cell.replace("`", "") for cell in row] for row in rows
    ]
    assert found.numbers == [False, True, False]
    assert [span.kind for span in found.rows[1][0]] == ["", "code", ""]


def test_blocks_read_paragraphs_lists_headings_and_code():
    found = list(blocks("**Two** lines\nof text.\n\n- one\n- two\n  parts\n\n### Title\n\n```sh\na  b\nc\n```"))
    assert [each.kind for each in found] == ["paragraph", "items", "heading", "code"]
    assert text(found[0].line) == "Two lines of text." and found[0].line[0].kind == "strong"
    assert [" ".join(text(line).split()) for line in found[1].lines] == ["one", "two parts"]
    assert found[2].text == "Title" and found[3].text == "a  b\nc"


def test_blocks_read_code_with_empty_lines_as_one_block():
    (found,) = blocks("```sh\nfirst\n\n# second\n```")
    assert found.kind == "code" and found.text == "first\n\n# second"


def test_spans_of_unpaired_marks_are_plain_text():
    assert [(span.text, span.kind) for span in spans("a ` b ** c")] == [("a ` b ** c", "")]
    assert [(span.text, span.kind) for span in spans("`a`**b**")] == [("a", "code"), ("b", "strong")]


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("40.15 [36.12, 44.17]", ["40.15", "[36.12,\u00a044.17]"]),
        ("147 (98.0 %)", ["147", "(98.0\u00a0%)"]),
        ("-7.9 % (-3.58 [-10.35, +5.19])", ["-7.9\u00a0%", "(-3.58", "[-10.35,\u00a0+5.19])"]),
        ("a text, of words", ["a", "text,", "of", "words"]),
    ],
)
def test_table_keeps_intervals_and_percentages_on_one_line(cell, parts):
    assert text(table(["a"], [[cell]]).rows[0][0]).split(" ") == parts


def test_section_anchor_has_no_character_that_an_address_cannot_hold():
    assert Section("Table 1: error rates <b>").anchor == "table-1-error-rates-b"
