"""Changes from Base, and the gap recovery only where the teacher leads."""

from __future__ import annotations

import pytest
from score_examples import CORPUS, SCORES, SETS, TEACHER, rows_of, run_scores

from arkasr.reporting import changes


def test_changes_gives_relative_change_points_interval_and_paper():
    _, _, *rows = rows_of(changes.changes(SETS, SCORES))
    assert [row[0] for row in rows] == ["Teacher (`qwen3_asr`, models/Qwen3-ASR-1.7B)", "Base+OPD"]
    assert rows[1][1] == "-50.0 % (-5.00 [-6.00, +1.50])"
    assert rows[1][3] == "-23.2 %"  # 2.88 / 3.75 - 1
    assert changes.changes(SETS, {"base_opd": SCORES["base_opd"]}) == ""


def test_changes_ends_with_gap_recovery():
    header, _, *rows = rows_of(changes.changes(SETS, SCORES))
    assert header[-2:] == ["test-clean gap recovery", "test-other gap recovery"]
    assert rows[0][-2:] == ["100.0 %"] * 2 and rows[1][-2:] == ["57.1 %"] * 2  # (40 - 20) / (40 - 5)
    without = rows_of(changes.changes(SETS, {run: SCORES[run] for run in ("base", "base_opd")}))
    assert not any("gap" in cell for cell in without[0])
    for rate in (40, None):
        no_gap = rows_of(changes.changes(SETS, SCORES | {"teacher": run_scores(rate, 0.0)}))
        assert not any("gap" in cell for cell in no_gap[0])


def test_gap_recovery_on_worked_examples():
    assert changes.gap_recovery(40.0, 25.0, 10.0) == pytest.approx(0.5)  # error rates
    assert changes.gap_recovery(0.2, 0.3, 0.6) == pytest.approx(0.25)  # accuracies
    assert changes.gap_recovery(40.0, 46.0, 10.0) == pytest.approx(-0.2)
    assert changes.gap_recovery(10.0, 9.0, 10.0) is None


def lead(low, high):
    """Scores with a teacher whose difference from Base has this interval."""
    return SCORES | {"teacher": {**run_scores(5, -87.5, (low, high)), "teacher": TEACHER}}


def test_changes_gives_gap_recovery_only_where_teacher_leads_beyond_chance():
    significant, not_significant = lead(-38, -0.01), lead(-38, 0.5)
    assert rows_of(changes.changes(SETS, significant))[3][-1] == "57.1 %" and changes.gap_notes(SETS, significant) == []
    assert "gap" not in changes.changes(SETS, not_significant)
    reason = "the interval of the teacher's difference from Base (-5.00 [-38.00, +0.50] points) is not below 0."
    expected = [f"No gap recovery on {name}: {reason}" for name in CORPUS["test_sets"]]
    assert changes.gap_notes(SETS, not_significant) == expected
    worse = lead(0.1, 3.0)  # the teacher is worse than Base
    assert "gap" not in changes.changes(SETS, worse) and len(changes.gap_notes(SETS, worse)) == 2
    assert changes.gap_notes(SETS, {"base": SCORES["base"]}) == []
