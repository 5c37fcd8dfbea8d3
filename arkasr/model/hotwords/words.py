"""Which characters belong to one word, so that a hotword is not found inside a longer word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def is_word_character(char: str) -> bool:
    """Return whether a character continues the word before it.

    Letters without case (category Lo), such as Chinese ones, do not: their scripts have no spaces, or join particles
    to words.

    Args:
        char: One character.

    Returns:
        True for cased letters, digits and marks.
    """
    category = unicodedata.category(char)
    return category[0] in "LNM" and category != "Lo"


def word_edges(tokens: Sequence[bytes | None]) -> tuple[list[bool], list[bool]]:
    """Return of each token whether its first and its last character belong to a word.

    A part of a character counts as a word character, because nothing can end inside a character.

    Args:
        tokens: UTF-8 bytes of each token. None for special tokens, which belong to no word.

    Returns:
        Two lists of V flags: whether the token continues the word before it, and whether a word can go on after it.
    """
    begins, ends = [], []
    for token in tokens:
        text = (token or b"").decode(errors="replace")
        begins.append(bool(text) and (text[0] == "\ufffd" or is_word_character(text[0])))
        ends.append(bool(text) and (text[-1] == "\ufffd" or is_word_character(text[-1])))
    return begins, ends
