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
    """Unify compatibility forms, case and apostrophes, and remove invisible format characters."""
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    # Before NFKC, because it splits an acute accent into a space and a mark. After NFKC, because it creates some.
    compatible = unicodedata.normalize("NFKC", visible.translate(APOSTROPHES)).lower()
    return unicodedata.normalize("NFKC", compatible).translate(APOSTROPHES)


def _is_letter_number_or_mark(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def _english(text: str) -> str:
    kept = "".join(char if _is_letter_number_or_mark(char) or char == "'" else " " for char in _fold(text))
    return " ".join(unicodedata.normalize("NFC", LOOSE_APOSTROPHE.sub(" ", kept)).split())


def _mandarin(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(char for char in _fold(text) if _is_letter_number_or_mark(char)))


def _raw(text: str) -> str:
    return " ".join(text.split())


NORMALIZERS = {
    entry.name: entry
    for entry in (
        # Keeps letters, numbers, marks and apostrophes inside words. Anything else is a space: "well-known" is two.
        Normalizer("english", "1", _english),
        # Keeps letters, numbers and marks, without spaces. Each letter of a Latin word counts as one character.
        Normalizer("mandarin", "1", _mandarin),
        # Keeps the text. White space is reduced to single spaces.
        Normalizer("raw", "1", _raw),
    )
}


def normalizer(name: str) -> Normalizer:
    """Return a normaliser by name.

    No normaliser spells out numbers, converts traditional to simplified characters, or removes fillers.

    Args:
        name: `english`, `mandarin` or `raw`.

    Returns:
        The normaliser.

    Raises:
        UserError: The name is unknown.
    """
    if name not in NORMALIZERS:
        raise UserError(f"normalizer {name!r} is unknown; use one of: {', '.join(sorted(NORMALIZERS))}")
    return NORMALIZERS[name]
