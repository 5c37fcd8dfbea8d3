"""The rules of the profile `paper`: those of the published scoring script, without its defects.

The script lower-cases, converts full-width digits, and deletes punctuation and some symbols. These rules differ:

| defect of the script | rule here |
|---|---|
| spaces count as characters in the errors of a CER, and not in its length | a CER ignores spaces |
| empty references are left out | kept, what is recognised in them counts as insertions |
| typographic quotes stay, and full-width letters differ | all punctuation is removed, all width forms are equal |
| `well-known` and `well known` are two errors | a hyphen is a space, as any punctuation between words |
| `3.14` equals `314`, and `we're` equals `were` | points between digits and apostrophes in words are kept |
| Korean is scored by CER | the metric of the language, for Korean WER |
| failed batches are scored as empty transcripts | failed clips are counted, see `arkasr score` |
"""

from __future__ import annotations

import unicodedata

from arkasr.scoring.normalize import fold, keep_letters, number_sign, strip_apostrophes

REMOVED_SYMBOLS = frozenset(
    "`~$^+=|<>"
)  # of the script's list, besides punctuation. Other symbols, such as €, are kept.


def paper(text: str, metric: str) -> str:
    """Normalise a text for the profile `paper`.

    Args:
        text: The text.
        metric: "cer" removes spaces, anything else keeps words.

    Returns:
        The normalised text.
    """
    if metric == "cer":
        return keep_letters(fold(text), _in_characters)
    return strip_apostrophes(keep_letters(fold(text), _in_words))


def _is_kept(char: str) -> bool:
    return unicodedata.category(char)[0] == "S" and char not in REMOVED_SYMBOLS


def _in_characters(before: str, char: str, after: str) -> str:
    return char if _is_kept(char) else number_sign(before, char, after)


def _in_words(before: str, char: str, after: str) -> str:
    if char == ".":
        return number_sign(before, char, after)  # nothing at other places: "U.S." is "us"
    return char if char == "'" or _is_kept(char) else " "
