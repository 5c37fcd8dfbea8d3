"""Loops at the end of transcripts."""

from __future__ import annotations

import pytest

from arkasr.utils.loops import ends_in_loop


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
