"""Text normalisers for scoring, by name. Reference and hypothesis are normalised before they are compared.

Each normaliser has a version, which is written to every scores.json. Change the version when you change a rule.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from arkasr.errors import UserError

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


@dataclass(frozen=True)
class Normalizer:
    """A named and versioned function from text to normalised text.

    Attributes:
        name: Name in `corpus.json`.
        version: Version of the rules.
        function: Function from str to str.
    """

    name: str
    version: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        return self.function(text)


def _fold(text: str) -> str:
    """Unify compatibility forms, case and apostrophes, and remove invisible characters and commas of thousands."""
    visible = "".join(char for char in IGNORABLE.sub("", text) if unicodedata.category(char) not in INVISIBLE)
    # Before NFKC, because it splits an acute accent into a space and a mark. After NFKC, because it creates some.
    compatible = unicodedata.normalize("NFKC", visible.translate(APOSTROPHES)).lower()
    folded = unicodedata.normalize("NFKC", compatible).translate(APOSTROPHES)
    return THOUSANDS.sub(lambda number: number[0].replace(",", ""), folded)


def _kept(text: str, other: Callable[[str, str, str], str]) -> str:
    """Keep letters, numbers and their marks. `other` replaces any other character, given its two neighbours."""
    characters, category = [], "Z"
    for before, char, after in zip(f" {text}", text, f"{text[1:]} "):
        previous, category = category, unicodedata.category(char)[0]
        if category == "M" and previous not in "LNM":
            category = "Z"  # a mark on nothing, such as the accent of a removed sign
        characters.append(char if category in "LNM" else other(before, char, after))
    return unicodedata.normalize("NFC", "".join(characters))


def _english(text: str) -> str:
    kept = _kept(_fold(text), lambda _before, char, _after: "'" if char == "'" else " ")
    return " ".join(LOOSE_APOSTROPHE.sub(" ", kept).split())


def _number_sign(before: str, char: str, after: str) -> str:
    return NUMBER_SIGNS.get(char, "") if before.isdecimal() and after.isdecimal() else ""


def _mandarin(text: str) -> str:
    return _kept(_fold(text), _number_sign)


def _raw(text: str) -> str:
    return " ".join(text.split())


NORMALIZERS = {
    entry.name: entry
    for entry in (
        # Keeps letters, numbers, marks and apostrophes inside words. Anything else is a space: "well-known" is two.
        # Commas of thousands are removed, as in Whisper's normaliser: "1,000" is "1000".
        Normalizer("english", "2", _english),
        # The same rules for other languages that are written with spaces between words.
        Normalizer("words", "1", _english),
        # Keeps letters, numbers and marks, without spaces. Each letter of a Latin word counts as one character.
        # Keeps signs between digits, as WeNet's scorer does: "3.5" is not "35".
        Normalizer("mandarin", "2", _mandarin),
        # The same rules for other languages that are written without spaces.
        Normalizer("characters", "1", _mandarin),
        # Keeps the text. White space is reduced to single spaces.
        Normalizer("raw", "1", _raw),
    )
}


def normalizer(name: str) -> Normalizer:
    """Return a normaliser by name.

    No normaliser spells out numbers, converts traditional to simplified characters, or removes fillers.

    Args:
        name: `english`, `words`, `mandarin`, `characters` or `raw`.

    Returns:
        The normaliser.

    Raises:
        UserError: The name is unknown.
    """
    if name not in NORMALIZERS:
        raise UserError(f"normalizer {name!r} is unknown; use one of: {', '.join(sorted(NORMALIZERS))}")
    return NORMALIZERS[name]
