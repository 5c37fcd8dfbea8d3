"""Markdown tables and numbers."""

from __future__ import annotations

import math

from arkasr.reporting.markdown import format_interval, format_number, markdown_table


def test_markdown_table_aligns_columns_and_escapes_bars():
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"


def test_markdown_table_aligns_columns_of_words_to_the_left():
    rows = [["x", "Base", "-1.5 [-2, -1] (!)", "-"], ["y", "2 models", "<0.001", "3 %"]]
    assert markdown_table(["a", "b", "c", "d"], rows).splitlines()[1] == "| --- | --- | ---: | ---: |"


def test_format_number_shows_what_is_not_a_number_as_dash():
    values = (None, math.nan, math.inf, 0.0, -1.005)
    assert [format_number(value) for value in values] == ["-", "-", "-", "0.00", "-1.00"]
    assert format_number(2, sign="+", digits=1) == "+2.0"


def test_format_interval_is_empty_for_none():
    assert format_interval(None) == ""
    assert format_interval((1, 2.5), sign="+") == " [+1.00, +2.50]"
