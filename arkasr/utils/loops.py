"""Recognise transcripts that end in a loop."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MAX_PERIOD = 24  # tokens of the longest pattern that counts as a loop: eight Chinese characters as UTF-8 bytes
MIN_REPEATS = 4  # of the pattern
MIN_TOKENS = 12  # covered by the repetitions


def ends_in_loop(units: Sequence[Hashable]) -> bool:
    """Return whether a sequence ends in a loop.

    A loop is a pattern of 1 to 24 tokens that occurs at least four times in succession. Together the occurrences cover
    at least 12 tokens. The last one may be incomplete, because the token cap can cut it anywhere.

    Args:
        units: Token ids, words or characters of a transcript.

    Returns:
        True if it does.
    """
    for period in range(1, min(MAX_PERIOD, len(units) // MIN_REPEATS) + 1):
        covered = period
        while covered < len(units) and units[-1 - covered] == units[-1 - covered + period]:
            covered += 1
        if covered >= max(MIN_REPEATS * period, MIN_TOKENS):
            return True
    return False
