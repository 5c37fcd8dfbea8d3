"""Join transcripts of windows that share audio, without doubled or lost words.

The end of the left transcript and the start of the right one are aligned by edit distance. Two readings of the same
audio may differ in every word, so words that are spelled alike count in part. Both windows are worst at their edges,
where a word may be cut, so the texts are joined in the middle of what they agree on.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

WORDS_PER_SECOND = 6.0  # very fast speech
CHARACTERS_PER_SECOND = 12.0
_MATCH, _ERROR, _EDGE = 2, 2, 1  # what equal words gain, an error costs, and an error at the edge of a window


def units(text: str, spaced: bool = True) -> list[str]:
    """Split a transcript into the units that are compared.

    Args:
        text: The transcript.
        spaced: Whether the language is written with spaces between words.

    Returns:
        Its words. Without spaces: its characters, with the marks and the punctuation that belong to them and the white
        space before them. Words of other scripts stay whole. `joined` restores the text.
    """
    if spaced:
        return text.split()
    found: list[str] = []
    before, word = "", False  # what belongs to the next unit, and whether letters continue the last one
    for char in text.strip():
        category = unicodedata.category(char)
        letter = _letter(char)
        if char.isspace() or category in ("Ps", "Pi"):
            before, word = before + char, False
        elif found and not before and (category[0] not in "LN" or category == "Lm" or (letter and word)):
            found[-1] += char
        else:
            found.append(before + char)
            before, word = "", letter
    return found if not before else [*found[:-1], "".join(found[-1:]) + before]


def plain_units(text: str) -> list[str]:
    """Split a text of any language into units without case and punctuation.

    Args:
        text: The text.

    Returns:
        Words of scripts with spaces, and characters of the others.
    """
    return [_key(unit) for unit in units(text, spaced=False)]


def joined(parts: Sequence[str], spaced: bool = True) -> str:
    """Join units of `units`, or whole texts, to one text.

    Args:
        parts: The units or texts in order.
        spaced: See `units`. If not, there are spaces only between letters of scripts that have spaces.

    Returns:
        The text, without spaces at its ends.
    """
    text = ""
    for part in parts:
        apart = text and part and (spaced or (_letter(text[-1]) and _letter(part[0])))
        text += f" {part}" if apart else part
    return text.strip()


def most_units(seconds: float, spaced: bool = True) -> int:
    """Return how many units can be said in some time.

    Args:
        seconds: The time.
        spaced: See `units`.

    Returns:
        The number. 0 if there is no time.
    """
    return math.ceil(seconds * (WORDS_PER_SECOND if spaced else CHARACTERS_PER_SECOND)) + 1 if seconds > 0 else 0


def seam(left: Sequence[str], right: Sequence[str], limit: int) -> tuple[int, int]:
    """Find where to join the units of two transcripts.

    1. Align the last `limit` units of `left` with the first `limit` units of `right`, so that the alignment reaches the
       end of `left` and begins with `right`. Case and punctuation do not count.
    2. If the alignment has more matches than errors, join at the match in its middle.
    3. If not, align again with words that are spelled alike: with the share s of their letters in common
       (Ratcliff and Obershelp 1988), a pair gains 2 s - 1 if that is above 0, and else costs at most -2 (2 s - 1). A
       match gains 2. If that is more than the errors cost, and one of the pairs is a match, join at the middle pair.
    4. If not, the texts share nothing, and both stay whole: `sixteen` and `seventeen` are alike, but not the same.

    Example: `a young far` and `young farmer opened` share `young`. The word at the end of the left text and the word
    that is compared with it differ, which costs little, because the window cuts it. The result is (2, 1):
    `a young` and `farmer opened`.

    Args:
        left: Units of the transcript of the earlier window.
        right: Units of the transcript of the later window.
        limit: Most units that the windows share (see `most_units`).

    Returns:
        (keep, skip): the joined text is `left[:keep]` and `right[skip:]`.
    """
    first = max(len(left) - limit, 0)
    tail, head = [_key(unit) for unit in left[first:]], [_key(unit) for unit in right[:limit]]
    matches = _matches(tail, head, alike=False) or _matches(tail, head, alike=True)
    if not matches:
        return len(left), 0
    row, column = matches[(len(matches) - 1) // 2]
    from_left = len(left) - 1 - (first + row) >= column  # the window in which the unit is farther from the edge
    return first + row + from_left, column + from_left


def stitch(left: str, right: str, limit: int, spaced: bool = True) -> str:
    """Join two transcripts (see `seam`).

    Args:
        left: Transcript of the earlier window.
        right: Transcript of the later window.
        limit: Most units that the windows share (see `most_units`).
        spaced: See `units`.

    Returns:
        The text of both.
    """
    before, after = units(left, spaced), units(right, spaced)
    keep, skip = seam(before, after, limit)
    return joined([joined(before[:keep], spaced), *after[skip:]], spaced)


def _letter(char: str) -> bool:
    """Return whether a character is a letter or number of a script with spaces between words."""
    category = unicodedata.category(char)
    return category[0] in "LN" and category not in ("Lo", "Lm")


def _key(unit: str) -> str:
    folded = unicodedata.normalize("NFKC", unit).casefold()
    return "".join(char for char in folded if unicodedata.category(char)[0] in "LNM") or folded.strip()


def _matches(tail: Sequence[str], head: Sequence[str], alike: bool) -> list[tuple[int, int]]:
    """Return the pairs of the best alignment that gain. Empty if none is a match, or if they gain too little."""
    # scores[i][j]: of the best alignment of a suffix of tail[:i] with head[:j]. What is before the suffix is free.
    scores = [[0.0] * (len(head) + 1) for _ in range(len(tail) + 1)]
    for j in range(1, len(head) + 1):
        scores[0][j] = scores[0][j - 1] - _cost(j == 1)
    for i in range(1, len(tail) + 1):
        for j in range(1, len(head) + 1):
            scores[i][j] = max(
                scores[i - 1][j - 1] + _pair(tail, head, i, j, alike),
                scores[i - 1][j] - _cost(i == len(tail)),
                scores[i][j - 1] - _cost(j == 1),
            )
    end = max(range(len(head) + 1), key=lambda j: (scores[-1][j], -j))
    found = _path(scores, tail, head, end, alike) if scores[-1][end] > 0 else []
    return found if any(tail[i] == head[j] for i, j in found) else []


def _cost(at_edge: bool) -> int:
    return _EDGE if at_edge else _ERROR


def _pair(tail: Sequence[str], head: Sequence[str], i: int, j: int, alike: bool) -> float:
    if tail[i - 1] == head[j - 1]:
        return _MATCH
    gain = 2 * _shared(tail[i - 1], head[j - 1]) - 1 if alike else -1
    return gain if gain > 0 else max(_ERROR * gain, -_cost(i == len(tail) or j == 1))


@lru_cache(maxsize=2**14)
def _shared(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _path(
    scores: Sequence[Sequence[float]], tail: Sequence[str], head: Sequence[str], j: int, alike: bool
) -> list[tuple[int, int]]:
    found, i = [], len(tail)
    while i > 0 and j > 0:
        gain = _pair(tail, head, i, j, alike)
        if scores[i][j] == scores[i - 1][j - 1] + gain:
            i, j = i - 1, j - 1
            if gain > 0:
                found.append((i, j))
        elif scores[i][j] == scores[i - 1][j] - _cost(i == len(tail)):
            i -= 1
        else:
            j -= 1
    return found[::-1]
