"""Which tokens of the student's transcripts belong to correct words, as aligned with the reference transcripts.

`word_groups` puts every token into one of four groups:

| group | tokens |
|---|---|
| `correct_word` | every word that the token has bytes of is equal to its word of the reference |
| `wrong_word` | some word that the token has bytes of is substituted or inserted |
| `no_word` | stop tokens, punctuation, damaged characters, and all tokens of texts that the student did not write |
| `no_reference` | tokens of a transcript of the student whose clip has no reference |

Words are those of the language's error rate: words between white space (WER), or characters (CER). Both texts are split
at white space (for CER: into characters), each piece is normalised by itself with the scoring profile `unicode`, and
the results are aligned with the fewest possible edits. A deleted word has no token, so deletions make no token wrong.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from arkasr.languages import known_language
from arkasr.scoring.alignment import align_all, tokens
from arkasr.scoring.profiles import find_profile

PROFILE = "unicode"  # works on any piece of text alone, unlike rules for numbers that span words
GROUPS = ("correct_word", "wrong_word", "no_word", "no_reference")
_CORRECT, _WRONG, _NO_WORD, _NO_REFERENCE = range(4)
Piece = tuple[int, int, list[str]]  # first byte, end byte, normalised words


def word_groups(
    data: Sequence[Sequence[bytes]], references: Sequence[str], languages: Sequence[str], sources: Sequence[str]
) -> list[list[int]]:
    """Return the group of every token of B transcripts.

    Args:
        data: The bytes of each token, empty for stop tokens.
        references: B reference texts, blank if there is none.
        languages: B names of languages.
        sources: Who wrote each transcript, `student` or another of `arkasr.config.schema.SOURCES`.

    Returns:
        Indices into `GROUPS`, one list per transcript.
    """
    aligned = [i for i, source in enumerate(sources) if source == "student" and references[i].strip()]
    pieces = {i: split(b"".join(data[i]), languages[i]) for i in aligned}
    found = {i: [word for _, _, words in pieces[i] for word in words] for i in aligned}
    expected = {
        i: [word for _, _, words in split(references[i].encode(), languages[i]) for word in words] for i in aligned
    }
    texts = [" ".join(expected[i]) for i in aligned], [" ".join(found[i]) for i in aligned]
    edits = dict(zip(aligned, align_all(*texts, "wer"), strict=True))
    groups = []
    for i, row in enumerate(data):
        if i in edits:
            equal = {n for c in edits[i] if c.type == "equal" for n in range(c.hyp_start_idx, c.hyp_end_idx)}
            groups.append(_of_tokens(row, pieces[i], equal))
        else:
            groups.append([_NO_REFERENCE if sources[i] == "student" else _NO_WORD] * len(row))
    return groups


def _joined(pieces: Sequence[Piece]) -> str:
    return " ".join(word for _, _, words in pieces for word in words)


def _of_tokens(row: Sequence[bytes], pieces: Sequence[Piece], equal: set[int]) -> list[int]:
    """Return the group of each token. equal: numbers of the words that are equal in the reference."""
    of_byte: list[int] = [_NO_WORD] * sum(map(len, row))
    ends = list(accumulate(len(words) for _, _, words in pieces))
    for (start, end, words), last in zip(pieces, ends, strict=True):
        if words:
            correct = equal.issuperset(range(last - len(words), last))
            of_byte[start:end] = [_CORRECT if correct else _WRONG] * (end - start)
    spans = pairwise([0, *accumulate(map(len, row))])
    inside = [set(of_byte[start:end]) for start, end in spans]
    return [_WRONG if _WRONG in found else _CORRECT if _CORRECT in found else _NO_WORD for found in inside]


def split(data: bytes, language: str) -> list[Piece]:
    """Split a text into the pieces that are normalised by themselves.

    Args:
        data: The text in UTF-8. Bytes that are not UTF-8 belong to no word.
        language: Name of its language.

    Returns:
        The pieces in order. Those without a letter or digit have no words.
    """
    known = known_language(language)
    name = known.name if known else ""
    found: list[Piece] = []
    for start, text in _pieces(data.decode("utf-8", "surrogateescape"), find_profile(PROFILE).metric(name) == "cer"):
        size = len(text.encode("utf-8", "surrogateescape"))
        found.append((start, start + size, list(_words(text, name))))
    return found


def _pieces(text: str, characters: bool) -> list[tuple[int, str]]:
    """Return pairs of the first byte and the text: runs without white space, or characters with their marks."""
    pieces: list[tuple[int, str]] = []
    start, joins = 0, False
    for char in text:
        if char.isspace():
            joins = False
        elif joins and not (characters and unicodedata.category(char)[0] != "M"):
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + char)
        else:
            pieces.append((start, char))
            joins = True
        start += len(char.encode("utf-8", "surrogateescape"))
    return pieces


@lru_cache(maxsize=65536)
def _words(text: str, language: str) -> tuple[str, ...]:
    profile = find_profile(PROFILE)
    normalised = profile.normalize(text.encode("utf-8", "ignore").decode(), language)  # without damaged characters
    return tuple(tokens(normalised, profile.metric(language)))
