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
    "language, kind, low, high", [("English", "mini", 3, 8), ("Chinese", "mini", 4, 10), ("English", "study", 5, 11)]
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
    used = {word for words in drawn["train"] for word in words}
    if kind == "mini":
        assert used == vocabulary(language)
    else:  # its rare words need more sentences
        assert used < vocabulary(language, kind) and len(used) > 0.9 * len(vocabulary(language, kind))


def test_study_has_words_enough_for_2000_tokens_and_rare_ones():
    drawn = Counter(
        word for words in itertools.islice(sentences("English", "train", rng(), "study"), 2400) for word in words
    )
    assert len(vocabulary("English", "study")) == 1212
    counts = sorted(drawn.values())
    assert counts[len(counts) // 4] < 6 and counts[-1] > 500
    assert drawn["WAITED"] > 3 * drawn["HESITATED"] > 0  # the first words of a slot are drawn more often
