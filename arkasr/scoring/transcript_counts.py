"""Count transcripts that are empty, cut, looping or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arkasr.scoring.collapse import repetition
from arkasr.scoring.tally import percent


def transcript_counts(
    texts: Sequence[str], stopped: Sequence[bool | None], looping: Sequence[bool | None]
) -> dict[str, Any]:
    """Count transcripts by what is odd about them.

    Args:
        texts: N normalised transcripts.
        stopped: Whether each ended with a stop token. None: not reported.
        looping: Whether each ends in a loop. None: not reported.

    Returns:
        `transcripts` (N), the numbers `empty_hypotheses`, `not_stopped` and `looping`, the same in percent of N as
        `empty_percent`, `cut_percent` and `looping_percent`, `distinct_hypotheses`, and `most_frequent_hypothesis`
        (`text` and `count`). None: not reported for some transcript, or there is no transcript.
    """
    frequent = repetition(texts) if texts else None
    cut = None if not texts or None in stopped else list(stopped).count(False)
    loops = None if not texts or None in looping else list(looping).count(True)
    empty = list(texts).count("")
    numbers = {"empty_percent": empty, "cut_percent": cut, "looping_percent": loops}
    return {
        "transcripts": len(texts),
        "empty_hypotheses": empty,
        "not_stopped": cut,
        "looping": loops,
        **{key: None if value is None or not texts else percent(value / len(texts)) for key, value in numbers.items()},
        "distinct_hypotheses": frequent.distinct if frequent else None,
        "most_frequent_hypothesis": {"text": frequent.most_frequent, "count": frequent.count} if frequent else None,
    }
