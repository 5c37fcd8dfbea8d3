"""Inflections and slots of the study's grammar."""

from __future__ import annotations

import pytest

from arkasr.corpora.synthetic.study_grammar import DOMAIN_PATTERNS, DOMAIN_SLOTS, PATTERNS, SLOTS, plural


@pytest.mark.parametrize(
    "word, expected",
    [("BOX", "BOXES"), ("PUPPY", "PUPPIES"), ("MONKEY", "MONKEYS"), ("DISH", "DISHES"), ("CARRY", "CARRIES")],
)
def test_plural_follows_the_ending(word, expected):
    assert plural(word) == expected


@pytest.mark.parametrize(
    "slot, words", [("DID", "CARRIED RESCUED PAINTED"), ("DOING", "CARRYING RESCUING PAINTING"), ("ACTED", "PRAYED")]
)
def test_verbs_are_inflected(slot, words):
    assert {(word,) for word in words.split()} <= set(SLOTS[slot])


def test_patterns_use_every_slot_and_no_slot_repeats_a_choice():
    assert {slot for pattern in PATTERNS for slot in pattern.split()} == set(SLOTS)
    assert {slot for pattern in DOMAIN_PATTERNS for slot in pattern.split()} == set(DOMAIN_SLOTS)
    assert all(choices == SLOTS[slot][: len(choices)] for slot, choices in DOMAIN_SLOTS.items())
    assert all(len(set(choices)) == len(choices) for choices in SLOTS.values())
    assert all(word.isalpha() and word.isupper() for choices in SLOTS.values() for words in choices for word in words)
