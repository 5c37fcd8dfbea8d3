"""The rules of the profile `wenet`: the tokens of WeNet's `compute-wer.py --char=1`, for mixed error rates."""

from __future__ import annotations

import re
import unicodedata

PUNCTUATION = frozenset("!,?、。！，；？：「」︰『』《》")  # noqa: RUF001  (full-width on purpose)
TAG = re.compile(r"<[^>]*>?")  # such as <noise>


def wenet(text: str) -> str:
    """Split a text into the tokens of a mixed error rate.

    1. Each letter without case, such as a Chinese character, is one token.
    2. Any other character that is not ASCII begins a token. ASCII characters that follow it belong to it.
    3. White space ends a token.
    4. 17 punctuation marks are removed, but not inside or at the end of an ASCII word. `<tags>` are removed.
    5. Letters become upper case.

    Args:
        text: The text. Neither width nor numbers nor accents are unified.

    Returns:
        The tokens, separated by single spaces.
    """
    tokens = (TAG.sub("", token).lstrip("!,?") for token in "".join(map(_separated, text)).split())
    return " ".join(token.upper() for token in tokens if token)


def _separated(char: str) -> str:
    if char.isascii():
        return char
    category = unicodedata.category(char)
    if char in PUNCTUATION or category in ("Zs", "Cn"):
        return " "
    return f" {char} " if category == "Lo" else f" {char}"
