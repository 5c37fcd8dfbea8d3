"""Loops at the end of transcripts, and anywhere in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from arkasr.utils.loops import MAX_PERIOD, ends_in_loop, has_loop, least_times


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("a " * 12, True),
        ("a " * 11, False),  # fewer than 12 tokens
        ("well " + "thank you " * 6, True),
        ("thank you " * 6 + "thank", True),  # the last one is incomplete
        ("thank you " * 6 + "well", False),  # it does not end in the loop
        ("a b c d e f g h i j k l " * 3, False),  # three times
        ("", False),
    ],
)
def test_ends_in_loop(text, looping):
    assert ends_in_loop(text.split()) is looping


def reference_has_loop(words):
    """Compare each phrase with those that follow it."""
    for period in range(1, MAX_PERIOD + 1):
        for start in range(len(words)):
            phrases = [words[start + period * i :][:period] for i in range(least_times(period))]
            if len(phrases[-1]) == period and all(phrase == phrases[0] for phrase in phrases):
                return True
    return False


PHRASES = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)


@given(st.lists(st.tuples(PHRASES, st.integers(1, 18)), max_size=4))
@rules(max_examples=300, deadline=None)
def test_has_loop_finds_exactly_the_phrases_that_are_repeated_often_enough(parts):
    words = [word for phrase, times in parts for word in phrase * times]
    assert has_loop(words) is reference_has_loop(words)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 4))
@rules(max_examples=200, deadline=None)
def test_has_loop_never_flags_phrases_that_are_said_four_times(line, times):
    """Each line of a song ends in a word of its own, and is sung up to four times. No word repeats inside of it."""
    words = [f"{word}-{number}" for number, word in enumerate(line)]
    assert not has_loop([word for start in range(0, len(words), 7) for word in words[start : start + 7] * times])


@given(
    st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=12),
    st.integers(0, 20),
    st.lists(st.sampled_from(["x", "y", "z"]), max_size=30),
    st.lists(st.sampled_from(["x", "y", "z"]), max_size=30),
)
@rules(max_examples=200, deadline=None)
def test_has_loop_flags_a_phrase_of_up_to_12_words_between_any_others(phrase, more, before, after):
    assert has_loop(before + phrase * (least_times(len(phrase)) + more) + after)


@pytest.mark.parametrize("words", range(1, MAX_PERIOD + 1))
def test_has_loop_counts_the_times(words):
    phrase, times = [f"w{i}" for i in range(words)], least_times(words)
    assert has_loop(["so", *phrase * times, "on"]) and not has_loop(["so", *phrase * (times - 1), "on"])
    assert times >= 5 and times * words >= 17


@pytest.mark.parametrize(
    "text",
    [
        "no no no no",
        "three three three three",
        "oh " * 16 + "one",  # more digits than a telephone number, as many as a card
        "four two " * 8 + "expires in may",
        "thank you " * 4 + "thank you so much",
        "one two three " * 4 + "and turn",
        "ha ha ha ha ha ha ha ha that is funny",
        "row row row your boat gently down the stream merrily merrily merrily merrily life is but a dream",
    ],
)
def test_has_loop_does_not_flag_speech_that_repeats(text):
    assert not has_loop(text.split())
