"""The rules of the scoring profile `unicode`, and their parts, which other profiles share.

No rule spells out numbers, converts traditional to simplified characters, or removes fillers. Change the version of the
profiles (see `arkasr.scoring.profiles`) when you change a rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

# Right and left single quotes, reversed quote, modifier letters, primes, backquote, acute accent.
APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u201b\u02bc\u02b9\u02bb\u2032\u2035`\u00b4", "'"))
LOOSE_APOSTROPHE = re.compile(r"(?<![^\s'])'|'(?![^\s'])")
# Commas between groups of digits: 1,000 and 12,34,567. Other commas separate words.
THOUSANDS = re.compile(r"(?<!\d)(?<!\d,)\d{1,3}(?:,\d{2,3})*,\d{3}(?!,?\d)")
# Default-ignorable code points of Unicode that are not of category Cf: variation selectors, joiners and fillers.
IGNORABLE = re.compile(r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
INVISIBLE = ("Cf", "Me")  # categories: format characters, and enclosing marks such as the keycap U+20E3
# Signs that separate two numbers, by the sign that is kept: fraction slash, minus sign and dashes.
NUMBER_SIGNS = dict(zip(".:/-\u2044\u2010\u2013\u2014\u2212", ".:/-/----"))


def fold(text: str) -> str:
    """Unify compatibility forms, case and apostrophes, and remove invisible characters and commas of thousands.

    Args:
        text: The text.

    Returns:
        The text in NFKC and lower case.
    """
    visible = "".join(char for char in IGNORABLE.sub("", text) if unicodedata.category(char) not in INVISIBLE)
    # Before NFKC, because it splits an acute accent into a space and a mark. After NFKC, because it creates some.
    compatible = unicodedata.normalize("NFKC", visible.translate(APOSTROPHES)).lower()
    folded = unicodedata.normalize("NFKC", compatible).translate(APOSTROPHES)
    return THOUSANDS.sub(lambda number: number[0].replace(",", ""), folded)


def keep_letters(text: str, other: Callable[[str, str, str], str]) -> str:
    """Keep letters, numbers and their marks.

    Args:
        text: Return value of `fold`.
        other: Replaces any other character, given the character before it, itself, and the one after it.

    Returns:
        The text in NFC.
    """
    found, category = [], "Z"
    for before, char, after in zip(f" {text}", text, f"{text[1:]} "):
        previous, category = category, unicodedata.category(char)[0]
        if category == "M" and previous not in "LNM":
            category = "Z"  # a mark on nothing, such as the accent of a removed sign
        found.append(char if category in "LNM" else other(before, char, after))
    return unicodedata.normalize("NFC", "".join(found))


def strip_apostrophes(text: str) -> str:
    """Remove apostrophes that are not inside words, and reduce white space to single spaces.

    Args:
        text: Text with spaces between words.

    Returns:
        The words.
    """
    return " ".join(LOOSE_APOSTROPHE.sub(" ", text).split())


def number_sign(before: str, char: str, after: str) -> str:
    """Return the sign between two digits, such as the point of "3.5".

    Args:
        before: The character before it.
        char: The character.
        after: The character after it.

    Returns:
        The sign, dashes unified. Empty if the character is none, or if it is not between digits.
    """
    return NUMBER_SIGNS.get(char, "") if before.isdecimal() and after.isdecimal() else ""


def words(text: str) -> str:
    """Normalise a text of a language that is written with spaces between words.

    Keeps letters, numbers, marks and apostrophes inside words. Anything else is a space: "well-known" is two words.
    Commas of thousands are removed, as in Whisper's normaliser: "1,000" is "1000".

    Args:
        text: The text.

    Returns:
        The words, separated by single spaces.
    """
    return strip_apostrophes(keep_letters(fold(text), lambda _before, char, _after: "'" if char == "'" else " "))


def characters(text: str) -> str:
    """Normalise a text of a language that is written without spaces.

    Keeps letters, numbers and marks, without spaces. Each letter of a Latin word counts as one character. Keeps signs
    between digits, as WeNet's scorer does: "3.5" is not "35".

    Args:
        text: The text.

    Returns:
        The characters.
    """
    return keep_letters(fold(text), number_sign)


def raw(text: str) -> str:
    """Reduce white space to single spaces.

    Args:
        text: The text.

    Returns:
        The text, otherwise as it is.
    """
    return " ".join(text.split())
