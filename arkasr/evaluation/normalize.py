"""Text normalisers for scoring, by name: reference and hypothesis pass through the same one before they are compared.

Each has a version that stands beside every score made with it: change a rule, change the version.
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
    """A named, versioned function from text to the text that is scored."""

    name: str
    version: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        return self.function(text)


def _fold(text: str) -> str:
    """Make one spelling of compatibility forms, case and apostrophes; drop invisible format characters."""
    visible = "".join(char for char in text if unicodedata.category(char) != "Cf")
    # Before NFKC, which would split an acute accent into a space and a mark; and after it, as NFKC makes some anew.
    compatible = unicodedata.normalize("NFKC", visible.translate(APOSTROPHES)).lower()
    return unicodedata.normalize("NFKC", compatible).translate(APOSTROPHES)


def _is_written(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def _english(text: str) -> str:
    kept = "".join(char if _is_written(char) or char == "'" else " " for char in _fold(text))
    return " ".join(unicodedata.normalize("NFC", LOOSE_APOSTROPHE.sub(" ", kept)).split())


def _mandarin(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(char for char in _fold(text) if _is_written(char)))


def _raw(text: str) -> str:
    return " ".join(text.split())


NORMALIZERS = {
    entry.name: entry
    for entry in (
        # Letters, numbers and marks, and the apostrophe inside a word; all else parts words ("well-known" is two).
        Normalizer("english", "1", _english),
        # Letters, numbers and marks, nothing between them: a Latin word counts as its letters, like any character.
        Normalizer("mandarin", "1", _mandarin),
        # The text as it stands; only white space is squeezed.
        Normalizer("raw", "1", _raw),
    )
}


def normalizer(name: str) -> Normalizer:
    """Return the normaliser of that name, a callable from str to str with `name` and `version`.

    None of them spells out numbers, folds traditional characters or drops fillers. Raises UserError for an
    unknown name, with the names there are.
    """
    if name not in NORMALIZERS:
        raise UserError(f"normalizer {name!r} is unknown; choose one of: {', '.join(sorted(NORMALIZERS))}")
    return NORMALIZERS[name]
