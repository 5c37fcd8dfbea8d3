"""Transcripts that end in a loop, the way in which a recogniser that lost the thread goes on to its cap."""

from __future__ import annotations

from collections.abc import Collection, Sequence

LONGEST_PATTERN, LEAST_REPEATS, LEAST_TOKENS = 24, 4, 12  # tokens: eight Chinese characters spelt in bytes


def is_looping(ids: Sequence[int], stop_ids: Collection[int] = ()) -> bool:
    """Tell whether ids end in a pattern of 1 to 24 tokens, four times or more and over 12 tokens or more.

    The last repetition may be cut: a loop of five tokens that the cap ends in its third token is one all the same.
    stop_ids: ids that are no part of the text.
    """
    ids = [i for i in ids if i not in stop_ids]
    for period in range(1, min(LONGEST_PATTERN, len(ids) // LEAST_REPEATS) + 1):
        covered = period
        while covered < len(ids) and ids[-1 - covered] == ids[-1 - covered + period]:
            covered += 1
        if covered >= max(LEAST_REPEATS * period, LEAST_TOKENS):
            return True
    return False
