"""Table 2: VUSS over steps and seeds, by place in the transcript, and beside the paper's numbers."""

from __future__ import annotations

import statistics

import pytest
from score_examples import METRICS, rows_of

from arkasr.reporting import vuss_table
from arkasr.reporting.vuss_table import Spread, over_seeds, spread, summary

SEEDS = {run: [rows] for run, rows in METRICS.items()}


def rows(*values, **places):
    return [{"step": i, "vuss": value, **places} for i, value in enumerate(values, 1)]


def test_overall_is_over_steps_and_next_to_paper():
    _, _, before, after = rows_of(vuss_table.overall(SEEDS, {"base_opd": 16}))
    assert before == ["Before TD (Base+OPD)", "23.00", "20.00", "26.00", "3", "16", "53.06", "52.38", "54.20", "32"]
    assert after == ["After TD (Base+TD+OPD)", "-", "-", "-", "-", "-", "51.61", "50.88", "52.41", "32"]


def test_overall_without_paper_has_the_rows_of_distilled_runs_only():
    table = rows_of(vuss_table.overall(SEEDS, {"base_opd": 16}, paper=False))
    assert table[0] == ["Condition", "Mean", "Min", "Max", "Logged steps", "k"]
    assert [row[0] for row in table[2:]] == ["Before TD (Base+OPD)"] and table[2][5] == "16"
    assert vuss_table.overall({}, {}, paper=False) == "" == vuss_table.by_place(SEEDS)


def test_overall_averages_seeds_with_their_deviation():
    runs = {"base_opd": [rows(40.0, 42.0), rows(44.0), rows()]}
    header, _, row = rows_of(vuss_table.overall(runs, {"base_opd": 32}, paper=False))
    assert header[4:] == ["Logged steps", "Seeds", "k"]
    deviation = f"{statistics.stdev([41, 44]):.2f}"
    assert row[1] == f"42.50 ± {deviation}" and row[4:] == ["3", "2", "32"]


def test_summary_weights_words_by_their_positions():
    """Step 1 has one wrong token of size 60, step 2 nine of size 50: the mean is 51. Deciles are means over steps."""
    steps = [
        {"vuss": 50.0, "vuss/wrong_word": 60.0, "positions/wrong_word": 1.0, "vuss/decile_3": 40.0},
        {"vuss": 52.0, "vuss/wrong_word": 50.0, "positions/wrong_word": 9.0, "vuss/decile_3": 44.0},
        {"vuss": 54.0, "vuss/decile_4": 7.0},
        {"loss": 1.0, "vuss": 0.0},
        {"loss": None, "vuss": None},
    ]
    found = summary(steps)
    assert found == {"Mean": 52, "Min": 50, "Max": 54, "steps": 3, "decile_3": 42, "decile_4": 7, "wrong_word": 51}
    assert summary([{"loss": 1.0}]) == {}


def test_by_place_has_deciles_and_words():
    places = {"vuss/decile_0": 30.0, "vuss/decile_9": 20.0, "vuss/correct_word": 25.0, "positions/correct_word": 4.0}
    header, _, row = rows_of(vuss_table.by_place({"base_td_opd": [rows(26.0, **places)]}))
    assert header[:3] == ["Condition", "Mean", "0 to 10 %"]
    assert header[11:] == ["90 to 100 %", "Correct words", "Wrong words"]
    assert row == ["After TD (Base+TD+OPD)", "26.00", "30.00", *["-"] * 8, "20.00", "25.00", "-"]


def test_rows_by_place_averages_seeds_of_any_rows():
    places = [{"vuss/decile_0": value, "positions/correct_word": 1.0} for value in (20.0, 24.0)]
    seeds = {"top_k=8": [rows(26.0, **each) for each in places], "top_k=4": [rows(7.0)], "not run": []}
    header, _, row = rows_of(vuss_table.rows_by_place(seeds, "Row"))
    assert header[0] == "Row" and row[:3] == ["top_k=8", "26.00 ± 0.00", f"22.00 ± {statistics.stdev([20, 24]):.2f}"]
    assert vuss_table.rows_by_place({}, "Row") == ""


def test_over_seeds_counts_the_seeds_that_have_a_number():
    found = over_seeds([rows(10.0, **{"vuss/decile_1": 4.0}), rows(14.0), []])
    assert found["Mean"] == Spread(12, pytest.approx(statistics.stdev([10, 14])), 2)
    assert found["decile_1"] == Spread(4, None, 1)
    assert spread([None, float("nan")]) is None and str(Spread(1.5, None, 1)) == "1.50"
