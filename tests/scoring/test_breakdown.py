"""Error rates by duration, speaker and condition, and words on silence."""

from __future__ import annotations

import pytest

from arkasr.scoring.breakdown import breakdown, duration_label, hallucination
from arkasr.scoring.tally import count
from arkasr.scoring.utterances import Utterance

UTTERANCES = [
    Utterance("a b", 1.0, "s2", "clean"),
    Utterance("a b", 5.0, "s1", "noisy"),
    Utterance("a b c d", 31.0, "s1", "clean"),
    Utterance("", 12.0, "s1", ""),
]
HYPOTHESES = ["a b", "a x", "a", "thank you"]
TALLY = count([each.text for each in UTTERANCES], HYPOTHESES, "wer")


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (0, "under 2 s"),
        (1.999, "under 2 s"),
        (2, "2 to 5 s"),
        (29.9, "20 to 30 s"),
        (30, "30 s and longer"),
        (None, "(unknown)"),
    ],
)
def test_duration_label(seconds, label):
    assert duration_label(seconds) == label


def test_breakdown_counts_each_utterance_once_per_kind():
    found = breakdown(TALLY, UTTERANCES)
    labels = {kind: [row["label"] for row in rows] for kind, rows in found.items()}
    assert labels == {
        "duration": ["under 2 s", "5 to 10 s", "10 to 15 s", "30 s and longer"],
        "speaker": ["s1", "s2"],
        "condition": ["clean", "noisy", "(unknown)"],
    }
    for rows in found.values():
        assert sum(row["errors"] for row in rows) == 6 and sum(row["utterances"] for row in rows) == 4
        assert sum(row["reference_length"] for row in rows) == 8
    first, second = found["speaker"]
    assert first["rate_percent"] == 100 and second["rate_percent"] == 0 and second["interval_percent"] == [0, 0]
    assert found["condition"][2]["rate_percent"] is None  # it has no reference words


def test_breakdown_leaves_out_kinds_that_nobody_names():
    assert breakdown(TALLY, [Utterance(each.text) for each in UTTERANCES]) == {}


def test_hallucination_counts_words_on_silence():
    assert hallucination(TALLY, UTTERANCES) == {
        "clips": 1,
        "clips_with_words": 1,
        "clips_percent": 100,
        "words": 2,
        "seconds": 12.0,
        "words_per_minute": 10.0,
    }


def test_hallucination_without_durations_has_no_words_per_minute():
    found = hallucination(count(["", ""], ["", "a"], "wer"), [Utterance(""), Utterance("", 3.0)])
    assert (found["clips_percent"], found["words"], found["seconds"], found["words_per_minute"]) == (50, 1, None, None)


def test_hallucination_is_none_if_every_reference_has_words():
    assert hallucination(count(["a"], ["a"], "wer"), [Utterance("a", 1.0)]) is None
