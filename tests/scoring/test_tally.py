"""Error counts against a reference edit distance, rates, and comparisons with Base."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.scoring.tally import count, summary

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=6)


def reference_edit_distance(reference, hypothesis):
    table = [[max(i, j) if not i * j else 0 for j in range(len(hypothesis) + 1)] for i in range(len(reference) + 1)]
    for i, left in enumerate(reference, 1):
        for j, right in enumerate(hypothesis, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (left != right))
    return table[-1][-1]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_count_of_words_equals_edit_distance(pairs):
    tally = count([" ".join(r) for r, _ in pairs], [" ".join(h) for _, h in pairs], "wer")
    assert tally.errors.tolist() == [reference_edit_distance(r, h) for r, h in pairs]
    assert tally.lengths.tolist() == [len(r) for r, _ in pairs]
    assert (tally.hits + tally.substitutions + tally.insertions).tolist() == [len(h) for _, h in pairs]


@settings(max_examples=200, deadline=None)
@given(st.text("今天好ab", max_size=8), st.text("今天好ab", max_size=8))
def test_count_of_characters_equals_edit_distance(reference, hypothesis):
    tally = count([reference], [hypothesis], "cer")
    assert tally.errors[0] == reference_edit_distance(reference, hypothesis) and tally.lengths[0] == len(reference)


def test_summary_rate_is_micro_average_and_includes_insertions_for_empty_references():
    got = summary(count(["a b", "c d e f", ""], ["a x", "c d e f", "thank you"], "wer"))
    assert (got["substitutions"], got["deletions"], got["insertions"], got["hits"]) == (1, 0, 2, 5)
    assert got["rate_percent"] == pytest.approx(50.0) and got["empty_references"] == 1
    assert got["utterances_with_errors"] == 2


def test_summary_without_reference_words_has_no_rate():
    got = summary(count(["", ""], ["a", ""], "wer"))
    assert got["rate_percent"] is None and got["interval_percent"] is None and got["errors"] == 1


def test_summary_counts_utterances_with_errors_and_draws_speakers():
    references, hypotheses = ["a b"] * 8, ["a b"] * 4 + ["x y"] * 4
    tally, speakers = count(references, hypotheses, "wer"), ["good"] * 4 + ["bad"] * 4
    got = summary(tally, speakers)
    assert (got["utterance_error_percent"], got["speakers"]) == (50, 2)
    assert got["interval_by_speaker_percent"] == [0, 100]  # one of four samples holds a single speaker, on each side
    low, high = got["interval_percent"]
    assert 0 < low < 50 < high < 100


@pytest.mark.parametrize(
    ("speakers", "number"), [((), None), (["a", "a"], 1), (["a", ""], None), (["", ""], None), (["a", "b"], 2)]
)
def test_summary_without_two_known_speakers_has_no_interval_by_speaker(speakers, number):
    got = summary(count(["a b", "c"], ["a x", "c"], "wer"), speakers)
    assert got["speakers"] == number and (got["interval_by_speaker_percent"] is None) == (number != 2)
