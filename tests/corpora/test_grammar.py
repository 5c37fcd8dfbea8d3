"""Sentences of the groups are disjoint."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from arkasr.corpora.synthetic.grammar import group_of, sentences, vocabulary


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "language, kind, low, high", [("English", "mini", 3, 8), ("Chinese", "mini", 4, 10), ("English", "study", 3, 8)]
)
def test_sentence_groups_are_disjoint_and_large(language, kind, low, high):
    drawn = {}
    for group in ("train", "dev", "test"):
        source = sentences(language, group, np.random.default_rng(0), kind)
        drawn[group] = set(itertools.islice(source, 3000))
        assert all(group_of(words) == group for words in drawn[group])
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not one & other
    assert len(drawn["train"]) > 1000
    units = ["".join(words) if language == "Chinese" else words for words in drawn["train"]]
    assert min(map(len, units)) >= low and max(map(len, units)) <= high
    assert {word for words in drawn["train"] for word in words} == vocabulary(language, kind)


def words_of(kind: str, count: int) -> Counter[str]:
    return Counter(
        word for words in itertools.islice(sentences("English", "train", rng(), kind), count) for word in words
    )


def test_words_of_the_study_are_frequent_and_part_of_its_text():
    spoken, written = vocabulary("English", "study"), vocabulary("English", "wide study")
    assert (len(spoken), len(written)) == (82, 1212) and spoken < written
    assert min(words_of("study", 2400).values()) > 20


def test_text_of_the_study_has_rare_words_and_often_those_of_its_speech():
    drawn = words_of("wide study", 8000)
    counts = sorted(drawn.values())
    assert len(drawn) > 1000 and counts[len(counts) // 4] < 10 and counts[-1] > 500
    assert drawn["WAITED"] > 3 * drawn["HESITATED"] > 0  # the first words of a slot are drawn more often
    assert min(drawn[word] for word in vocabulary("English", "study")) > 10
