"""Tables of intervals and significance: each number is in its cell, few or unknown speakers are named."""

from __future__ import annotations

import pytest
from score_examples import SETS, rows_of, run_scores

from arkasr.reporting import terminal, uncertainty


def scores(**more):
    content = {run: run_scores(rate, -50 if run != "base" else None) for run, rate in (("base", 40), ("base_opd", 20))}
    for run in content.values():
        for entry in run["sets"].values():
            entry |= {"utterance_error_percent": 90.0, "speakers": 6, "interval_by_speaker_percent": [10.0, 70.0]}
            entry |= more
            if change := entry.get("against_base"):
                change |= {"interval_by_speaker_percent": [-9.0, 2.0], "p_matched_pairs": 1e-5, "p_bootstrap": 0.034}
    return content


def test_intervals_show_both_kinds_beside_each_other():
    header, _, first, second, *_ = rows_of(uncertainty.intervals(SETS, scores()))
    assert header[3:6] == ["95 % by utterance", "95 % by speaker", "Speakers"]
    assert first == ["test-clean", "Base", "40.00", "[39.00, 42.00]", "[10.00, 70.00]", "6", "90.0"]
    assert second[:3] == ["test-clean", "Base+OPD", "20.00"]


def test_intervals_by_speaker_are_dashes_if_speakers_are_unknown():
    _, _, first, *_ = rows_of(uncertainty.intervals(SETS, scores(speakers=None, interval_by_speaker_percent=None)))
    assert first[4:6] == ["-", "-"]


def test_significance_has_a_row_for_each_run_besides_base():
    _, _, *rows = rows_of(uncertainty.significance(SETS, scores()))
    assert rows[0] == ["test-clean", "Base+OPD", "-5.00", "[-6.00, +1.50]", "[-9.00, +2.00]", "<0.001", "0.034"]
    assert [row[:2] for row in rows] == [["test-clean", "Base+OPD"], ["test-other", "Base+OPD"]]


def test_scores_of_older_versions_have_no_tables():
    old = {"base": run_scores(40), "base_opd": run_scores(20, -50)}
    assert uncertainty.intervals(SETS, old) == "" == uncertainty.significance(SETS, old)
    assert uncertainty.few_speakers(SETS, old) == [] == uncertainty.unknown_speakers(SETS, old)


@pytest.mark.parametrize(
    ("speakers", "few", "unknown"),
    [(6, "test-clean (6), test-other (6)", None), (20, None, None), (None, None, "test-clean"), (1, "(1)", None)],
)
def test_sets_with_few_or_unknown_speakers_are_named(speakers, few, unknown):
    content = scores(speakers=speakers)
    for notes, part in (
        (uncertainty.few_speakers(SETS, content), few),
        (uncertainty.unknown_speakers(SETS, content), unknown),
    ):
        assert (part in notes[0]) if part else notes == []
    assert bool(few) == ("Fewer than 20 speakers" in terminal.table(SETS, content))


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (1, "1.000")]
)
def test_format_p(value, text):
    assert uncertainty.format_p(value) == text
