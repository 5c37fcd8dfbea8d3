"""Counts and shares of empty, cut, looping and repeated transcripts."""

from __future__ import annotations

from arkasr.scoring.transcript_counts import transcript_counts


def test_counts_and_their_shares():
    found = transcript_counts(["a", "", "a", "b"], [True, False, False, True], [False, False, False, True])
    assert (found["transcripts"], found["empty_hypotheses"], found["not_stopped"], found["looping"]) == (4, 1, 2, 1)
    assert (found["empty_percent"], found["cut_percent"], found["looping_percent"]) == (25, 50, 25)
    assert found["distinct_hypotheses"] == 3 and found["most_frequent_hypothesis"] == {"text": "a", "count": 2}


def test_what_some_transcripts_do_not_report_has_no_count():
    found = transcript_counts(["a", "b"], [True, None], [None, None])
    assert (found["not_stopped"], found["cut_percent"], found["looping"], found["looping_percent"]) == (None,) * 4


def test_no_transcripts_have_no_shares():
    found = transcript_counts([], [], [])
    assert found["transcripts"] == found["empty_hypotheses"] == 0
    assert all(value is None for key, value in found.items() if key not in ("transcripts", "empty_hypotheses"))
