"""Recognise transcripts that loop, at their end or anywhere."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MAX_PERIOD = 24  # tokens of the longest pattern that counts as a loop: eight Chinese characters as UTF-8 bytes
MIN_REPEATS = 4  # of the pattern
MIN_TOKENS = 12  # covered by the repetitions
LEAST_TIMES = 5  # that a phrase is repeated anywhere in a text
LEAST_WORDS = 17  # covered by the repetitions of the phrase


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


def least_times(period: int) -> int:
    """Return how often a phrase occurs in succession in a text that loops: max(5, ceil(17 / p)) for p words.

    That is 17 times for one word, 9 for two, 6 for three, and 5 for longer phrases.

    Args:
        period: Number of words of the phrase.

    Returns:
        The number of times.
    """
    return max(LEAST_TIMES, -(-LEAST_WORDS // period))


def has_loop(words: Sequence[Hashable]) -> bool:
    """Return whether a sequence loops anywhere: a phrase of 1 to 24 words occurs `least_times` in succession.

    The rule is stricter than that of `ends_in_loop`, because a loop at the end has ended the text and one in the middle
    has not. Two kinds of speech repeat the most, and both stay below it:

    - Numbers that are read out. A telephone number has at most 15 digits (E.164), and the number of a card has 16, so
      repeated digits cover at most 16 words: `three three three three`, or `four two four two four two four two`.
    - Calls, songs and emphasis. A line is sung or called up to four times: `no no no no`, `thank you thank you thank
      you thank you`.

    Whoever says a phrase more often than that is not told from a model that loops.

    Args:
        words: Words, or characters of languages without spaces.

    Returns:
        True if it does.
    """
    for period in range(1, min(MAX_PERIOD, len(words) // LEAST_TIMES) + 1):
        repeated, needed = 0, (least_times(period) - 1) * period  # words that equal the one a period before
        for before, word in zip(words, words[period:]):
            repeated = repeated + 1 if word == before else 0
            if repeated >= needed:
                return True
    return False
