"""The alarm for collapsed models: it depends on how often references repeat, and how close transcripts are to them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.scoring.collapse import Collapse, collapsed, printable, repetition

SENTENCES = [f"sentence number {i} of this test" for i in range(400)]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def spoken(words, num_clips=400):
    return [words[i % len(words)] for i in range(num_clips)]


def biased(references, text, share):
    """Replace this share of the transcripts, spread evenly, by one text."""
    return [text if int((i + 1) * share) > int(i * share) else r for i, r in enumerate(references)]


def test_collapsed_reports_342_of_400_equal_transcripts():
    hypotheses = ["thank you"] * 342 + SENTENCES[342:]
    assert collapsed(hypotheses, SENTENCES) == Collapse("thank you", 342, 400, 59)


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [
        (SENTENCES, ["a"] * 400),
        (SENTENCES, [""] * 400),
        (SENTENCES, biased(SENTENCES, "a", 0.5)),
        (SENTENCES, ["a"] * 180 + ["b"] * 180 + SENTENCES[360:]),  # two sentences
        (SENTENCES, spoken(["a", "b", "c", "d", "e"])),
        (SENTENCES[:20], ["a"] * 20),
        (spoken(DIGITS), ["seven"] * 400),
        (spoken(DIGITS), biased(spoken(DIGITS), "seven", 0.6)),
        (spoken(["yes", "no"]), ["yes"] * 400),
        (spoken(["yes", "no"]), biased(spoken(["yes", "no"]), "yes", 0.97)),
        (["unknown"] * 360 + spoken(DIGITS, 40), ["unknown"] * 400),
    ],
)
def test_collapsed_gives_alarm_if_transcripts_repeat_far_more_than_references(references, hypotheses):
    assert collapsed(hypotheses, references) is not None


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [
        (SENTENCES, SENTENCES),
        (SENTENCES, biased(SENTENCES, "", 0.3)),  # 30 % empty
        (SENTENCES[:19], ["a"] * 19),  # too few clips
        (spoken(DIGITS), spoken(DIGITS)),
        (spoken(DIGITS), biased(spoken(DIGITS), "nine", 0.4)),
        (spoken(["yes", "no"]), spoken(["yes", "no"])),
        (["yes"] * 200 + ["no"] * 200, ["yes"] * 300 + ["no"] * 100),  # misses half of one word
        ([""] * 400, [""] * 400),  # no speech
        ([""] * 280 + SENTENCES[:120], [""] * 340 + SENTENCES[60:120]),  # misses half of the speech
        (["unknown"] * 398 + ["stop", "go"], ["unknown"] * 400),
        ([], []),
    ],
)
def test_collapsed_is_silent_if_transcripts_repeat_as_references_do(references, hypotheses):
    assert collapsed(hypotheses, references) is None


def words(num_clips=60, seed=0, length=8):
    """Different sentences of made-up words."""
    generator = random.Random(seed)
    word = ["".join(generator.choices("abcdefghij", k=4)) for _ in range(300)]
    return [" ".join(generator.choices(word, k=length)) for _ in range(num_clips)]


@pytest.mark.parametrize("num_clips", [20, 60, pytest.param(1200, marks=pytest.mark.slow)])
def test_collapsed_gives_alarm_for_different_transcripts_that_are_unrelated_to_the_references(num_clips):
    references = words(num_clips)
    variants = ["thank you " * (3 + i % 17) + f"for {i}" for i in range(num_clips)]
    of_other_clips = references[7:] + references[:7]
    for hypotheses in (variants, of_other_clips, words(num_clips, seed=1)):
        found = collapsed(hypotheses, references)
        assert found is not None and found.unrelated and found.distinct == num_clips
        assert str(found) == "transcripts are no closer to their own references than to those of other clips"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7])
def test_collapsed_is_silent_for_weak_but_related_transcripts(share):
    references, generator = words(40), random.Random(1)
    noise = [word for text in words(60, seed=2) for word in text.split()]
    hypotheses = [
        " ".join(generator.choice(noise) if generator.random() < share else word for word in text.split())
        for text in references
    ]
    assert collapsed(hypotheses, references) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(20, 300), st.integers(0, 10**6))
def test_collapsed_is_silent_for_perfect_transcripts(num_texts, num_clips, seed):
    generator = random.Random(seed)
    references = [f"text {int(num_texts * generator.random() ** 3)}" for _ in range(num_clips)]
    assert collapsed(references, references) is None


def test_repetition_counts_distinct_and_most_frequent():
    assert repetition(["a", "b", "b", ""]) == Collapse("b", 2, 4, 3)


def test_collapse_reads_as_one_clause_without_control_characters():
    clause = '342 of 400 transcripts are "a [2Jb c" (distinct transcripts: 59)'
    assert str(Collapse("a\x1b[2Jb\nc", 342, 400, 59)) == clause
    assert str(Collapse("", 20, 20, 1)) == "20 of 20 transcripts are empty (distinct transcripts: 1)"
    assert len(printable("x" * 1000)) == 62
