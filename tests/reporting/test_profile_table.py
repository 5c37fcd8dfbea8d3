"""The table of error rates by scoring profile, in Markdown and in a terminal."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from score_examples import SCORES, SETS, rows_of

from arkasr.reporting import terminal
from arkasr.reporting.profile_table import by_profile, profile_lines, profile_names

UNICODE = {"version": "1", "metric": "wer", "rate_percent": 40.0, "interval_percent": [39, 42]}
MIXED = {"version": "1", "metric": "mer", "rate_percent": 3.25, "interval_percent": None}


def scores():
    found = {run: deepcopy(SCORES[run]) for run in ("base", "base_opd")}
    found["base"]["sets"]["test-clean"]["profiles"] = {"unicode": UNICODE, "paper": UNICODE | {"rate_percent": 38.5}}
    found["base_opd"]["sets"]["test-other"]["profiles"] = {"unicode": UNICODE, "wenet": MIXED}
    return found


def test_each_profile_has_a_column_with_its_metric_and_interval():
    rows = rows_of(by_profile(SETS, scores()))
    assert rows[0] == ["Set", "Model", "`unicode` WER", "`paper` WER", "`wenet` MER"]
    assert rows[2] == ["test-clean", "Base", "40.00 [39.00, 42.00]", "38.50 [39.00, 42.00]", "-"]
    assert rows[3] == ["test-clean", "Base+OPD", "20.00 [19.00, 22.00]", "-", "-"]  # of an older version
    assert rows[5] == ["test-other", "Base+OPD", "40.00 [39.00, 42.00]", "-", "3.25"]


def test_there_is_no_table_of_one_profile():
    assert by_profile(SETS, SCORES) == "" and profile_lines(SETS, SCORES) == []
    assert "scoring profile" not in terminal.table(SETS, SCORES)


def test_terminal_shows_the_profiles_in_80_columns():
    text = terminal.table(SETS, scores())
    lines = text[text.index("Error % by scoring profile") :].splitlines()
    assert [line.split() for line in lines[2:4]] == [
        ["test", "set", "model", "unicode", "paper", "wenet"],
        ["test-clean", "Base", "40.00", "38.50", "-"],
    ]
    assert lines[4].split() == ["Base+OPD", "20.00", "-", "-"] and max(map(len, lines)) <= 80


def test_wide_table_in_a_terminal_is_grouped_by_test_set():
    sets = [replace(SETS[0], name="a" * 60), SETS[1]]
    found = scores()
    for content in found.values():
        content["sets"]["a" * 60] = content["sets"].pop("test-clean")
    text = terminal.table(sets, found)
    lines = text[text.index("Error % by scoring profile") :].splitlines()[2:]
    assert [line.split()[0] for line in lines[:5]] == ["model", "a" * 60, "Base", "Base+OPD", "test-other"]
    assert lines[2].split() == ["Base", "40.00", "38.50", "-"] and max(map(len, lines)) <= 80


def test_profile_names_hold_the_version_once():
    entries = [{"profile": {"name": "raw", "version": "1"}}] * 2 + [{"profile": {"name": "paper", "version": "2"}}]
    assert profile_names(entries) == ["`raw` version 1", "`paper` version 2"]
