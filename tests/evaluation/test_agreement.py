"""Agreement of transcripts with those in float32: the sample and the figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.evaluation.agreement import agreement, in_words, sample
from arkasr.evaluation.results_io import TestSet


def set_of(metric="wer", language="English"):
    return TestSet("test", Path("test.jsonl.gz"), metric, ("unicode",), language)


def test_sample_depends_on_the_ids_only():
    clips = [f"clip-{i}" for i in range(100)]
    drawn = sample(clips, 10)
    assert drawn == sample(reversed(clips), 10) and len(drawn) == 10 and drawn < set(clips)
    assert drawn < sample(clips, 20)
    assert drawn != set(clips[:10]) and sample(clips, 200) == set(clips) and sample(clips, 0) == set()
    assert len(sample(["half \ud83d", "b"], 2)) == 2


ENGLISH = {"a": "one two", "b": "three four", "c": "ab cde", "d": ""}
MANDARIN = {"a": "\u6211\u4eec", "b": "\u4f60\u597d", "c": "\u5403\u996d\u5427", "d": ""}


@pytest.mark.parametrize(
    ("metric", "language", "exact", "change", "error"),
    [
        ("wer", "English", ENGLISH, {"b": "Three, four.", "c": "ab"}, 1 / 6),  # one of six words
        ("cer", "Chinese", MANDARIN, {"b": "\u4f60 \u597d", "c": "\u5403"}, 2 / 7),  # two of seven characters
    ],
)
def test_agreement_counts_equal_texts_and_errors_after_normalisation(metric, language, exact, change, error):
    rows = {clip: {"hypothesis": text} for clip, text in (exact | change | {"e": "not compared"}).items()}
    found = agreement(rows, exact, set_of(metric, language))
    assert (found["clips"], found["equal"]) == (4, 2) and found["error"] == pytest.approx(error)


def test_agreement_of_transcripts_without_words_has_no_rate():
    found = agreement({"a": {"hypothesis": "one"}}, {"a": ""}, set_of())
    assert found == {"clips": 1, "equal": 0, "error": None}
    assert in_words(found, "wer") == "0 of 1 transcripts are equal to those in float32"


def test_agreement_in_words_names_the_metric():
    text = in_words({"clips": 64, "equal": 63, "error": 0.00123}, "cer")
    assert text == "63 of 64 transcripts are equal to those in float32, CER between them 0.12 %"
