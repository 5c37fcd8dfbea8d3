"""Tables of RESULTS.md and of the terminal: each number is in its cell, the paper's numbers have their own columns."""

from __future__ import annotations

import pytest
from score_examples import CORPUS, METRICS, SCORES, rows_of, run_scores, set_scores

from arkasr.errors import UserError
from arkasr.evaluation import tables


def test_error_rates_has_separate_columns_for_paper():
    header, _, *rows = rows_of(tables.error_rates(CORPUS, SCORES))
    assert header[1].startswith("test-clean WER") and header[3:] == [
        "paper: model",
        "paper: Libri clean",
        "paper: Libri Other",
    ]
    assert rows[1] == ["Base", "40.00 [39.00, 42.00]", "40.00 [39.00, 42.00]", "Ark-Base", "3.75", "7.17"]
    assert rows[0][0] == "Teacher" and rows[0][3:] == ["Qwen3-ASR-1.7B", "2.20", "4.05"]
    assert rows[3] == ["(paper only)", "-", "-", "Qwen3-ASR-0.6B", "2.81", "5.05"]


def test_error_rates_without_paper_columns_has_runs_only():
    header, _, *rows = rows_of(tables.error_rates({**CORPUS, "paper": {"test-clean": None}}, SCORES))
    assert len(header) == 3 and [row[0] for row in rows] == ["Teacher", "Base", "Base+OPD"]


def test_error_rates_rejects_unknown_paper_column_and_lists_columns():
    with pytest.raises(UserError, match="'Libri dirty'.*Libri clean"):
        tables.error_rates({**CORPUS, "paper": {"test-clean": "Libri dirty"}}, SCORES)


def test_changes_gives_relative_change_points_interval_and_paper():
    _, _, *rows = rows_of(tables.changes(CORPUS, SCORES))
    assert [row[0] for row in rows] == ["Teacher", "Base+OPD"]
    assert rows[1][1] == "-50.0 % (-5.00 [-6.00, +1.50])"
    assert rows[1][3] == "-23.2 %"  # 2.88 / 3.75 - 1
    assert tables.changes(CORPUS, {"base_opd": SCORES["base_opd"]}) == ""


def test_changes_ends_with_gap_recovery():
    header, _, *rows = rows_of(tables.changes(CORPUS, SCORES))
    assert header[-2:] == ["test-clean gap recovery", "test-other gap recovery"]
    assert rows[0][-2:] == ["100.0 %"] * 2 and rows[1][-2:] == ["57.1 %"] * 2  # (40 - 20) / (40 - 5)
    without = rows_of(tables.changes(CORPUS, {run: SCORES[run] for run in ("base", "base_opd")}))
    assert not any("gap" in cell for cell in without[0])
    no_gap = rows_of(tables.changes(CORPUS, SCORES | {"teacher": run_scores(40, 0.0)}))
    unknown = rows_of(tables.changes(CORPUS, SCORES | {"teacher": run_scores(None, 0.0)}))
    assert no_gap[3][-1] == unknown[3][-1] == "-"


def test_vuss_is_over_steps_and_next_to_paper():
    _, _, before, after = rows_of(tables.vuss(METRICS, {"base_opd": 16}))
    assert before == ["Before TD (Base+OPD)", "23.00", "20.00", "26.00", "3", "16", "53.06", "52.38", "54.20", "32"]
    assert after == ["After TD (Base+TD+OPD)", "-", "-", "-", "-", "-", "51.61", "50.88", "52.41", "32"]


def test_counts_are_percentages_of_reference():
    header, _, *rows = rows_of(tables.counts(CORPUS, SCORES))
    row = dict(zip(header, rows[0]))
    assert (row["Wrd"], row["Corr"], row["Sub"], row["Del"], row["Ins"]) == ("200", "75.0", "15.0", "10.0", "2.0")
    assert (row["Err"], row["S.Err"], row["Missing"], row["Empty"]) == ("27.0", "90.0", "2", "1")
    assert (row["Cut off"], row["Looping"]) == ("3", "-")
    assert "Chr" in rows_of(tables.counts({**CORPUS, "metric": "cer"}, SCORES))[0]


def test_terminal_fits_80_columns_with_longest_names():
    corpus = {**CORPUS, "test_sets": ["test_meeting"], "paper": {"test_meeting": "Wenet meeting"}}
    entry = {"sets": {"test_meeting": set_scores(120.25, -12.5)}}
    text = tables.terminal(corpus, {"base": entry, "base_td_opd": entry})
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1].split() == ["Base+TD+OPD", "120.25", "119.25", "to", "122.25", "-12.5", "%", "5.92"]
    assert "miniature" in text and "miniature" not in tables.terminal({**corpus, "scale": "paper"}, {"base": entry})


def test_tables_show_unknown_rate_as_dash():
    scores = {"base": run_scores(None)}
    assert rows_of(tables.error_rates(CORPUS, scores))[2][1:3] == ["-", "-"]
    assert tables.terminal(CORPUS, scores).splitlines()[-1].split()[1:] == ["Base", "-", "-", "-", "7.17"]


def test_gap_recovery_on_worked_examples():
    assert tables.gap_recovery(40.0, 25.0, 10.0) == pytest.approx(0.5)  # error rates
    assert tables.gap_recovery(0.2, 0.3, 0.6) == pytest.approx(0.25)  # accuracies
    assert tables.gap_recovery(40.0, 46.0, 10.0) == pytest.approx(-0.2)
    assert tables.gap_recovery(10.0, 9.0, 10.0) is None
