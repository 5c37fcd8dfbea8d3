"""Sentences of the groups are disjoint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from arkasr.corpora.synthetic.grammar import group_of, sentences, vocabulary


@pytest.mark.slow
@pytest.mark.parametrize("language, low, high", [("English", 3, 8), ("Chinese", 4, 10)])
def test_sentence_groups_are_disjoint_and_large(language, low, high):
    drawn = {}
    for group in ("train", "dev", "test"):
        source = sentences(language, group, np.random.default_rng(0))
        drawn[group] = set(itertools.islice(source, 3000))
        assert all(group_of(words) == group for words in drawn[group])
    for one, other in itertools.combinations(drawn.values(), 2):
        assert not one & other
    assert len(drawn["train"]) > 1000
    units = ["".join(words) if language == "Chinese" else words for words in drawn["train"]]
    assert min(map(len, units)) >= low and max(map(len, units)) <= high
    used = {word for words in drawn["train"] for word in words}
    assert used == vocabulary(language)
