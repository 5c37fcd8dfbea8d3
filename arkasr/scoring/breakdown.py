"""Error rates of parts of a test set (duration, speaker, condition), and words recognised where none are spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from arkasr.scoring import bootstrap
from arkasr.scoring.tally import Tally, percent, percents, summary
from arkasr.scoring.utterances import Utterance

EDGES = (2, 5, 10, 15, 20, 30)  # seconds, the same for all test sets
UNKNOWN = "(unknown)"


def duration_label(seconds: float | None) -> str:
    """Return the class of a duration.

    Args:
        seconds: Duration in seconds, or None.

    Returns:
        Such as "under 2 s", "2 to 5 s" (5 s is in the next class) or "30 s and longer".
    """
    if seconds is None:
        return UNKNOWN
    above = sum(seconds >= edge for edge in EDGES)
    if above == len(EDGES):
        return f"{EDGES[-1]} s and longer"
    return f"{EDGES[above - 1]} to {EDGES[above]} s" if above else f"under {EDGES[0]} s"


KINDS: dict[str, Callable[[Utterance], str]] = {
    "duration": lambda utterance: duration_label(utterance.seconds),
    "speaker": lambda utterance: utterance.speaker or UNKNOWN,
    "condition": lambda utterance: utterance.condition or UNKNOWN,
}
DURATIONS = [duration_label(seconds) for seconds in (0, *EDGES)]


def breakdown(tally: Tally, utterances: Sequence[Utterance]) -> dict[str, list[dict[str, Any]]]:
    """Count errors by duration, speaker and condition.

    Args:
        tally: Counts per utterance.
        utterances: The N utterances, in the same order.

    Returns:
        By kind, `duration`, `speaker` and `condition`, one row per class: `label`, `utterances`, `reference_length`,
        `errors`, `rate_percent` and `interval_percent` (95 %, by utterance). Durations are sorted by length, others by
        label. The class "(unknown)" comes last. A kind that no utterance names is absent.
    """
    found = {}
    for kind, label_of in KINDS.items():
        members: dict[str, list[int]] = {}
        for index, utterance in enumerate(utterances):
            members.setdefault(label_of(utterance), []).append(index)
        order = sorted(members.keys() - {UNKNOWN}, key=DURATIONS.index if kind == "duration" else None)
        if order:
            unknown = [UNKNOWN] if UNKNOWN in members else []
            found[kind] = [_row(label, tally, members[label]) for label in (*order, *unknown)]
    return found


def _row(label: str, tally: Tally, chosen: list[int]) -> dict[str, Any]:
    errors, lengths = tally.errors[chosen], tally.lengths[chosen]
    length = int(lengths.sum())
    return {
        "label": label,
        "utterances": len(chosen),
        "reference_length": length,
        "errors": int(errors.sum()),
        "rate_percent": percent(int(errors.sum()) / length) if length else None,
        "interval_percent": percents(bootstrap.interval(errors, lengths)),
    }


def hallucination(tally: Tally, utterances: Sequence[Utterance]) -> dict[str, Any] | None:
    """Count the words that are recognised in clips with an empty reference, which hold silence or noise.

    Args:
        tally: Counts per utterance.
        utterances: The N utterances, in the same order.

    Returns:
        `clips` with an empty reference, `clips_with_words`, `clips_percent` (the share of these), `words` (characters
        for CER), `seconds` and `words_per_minute`. The last two are None if a duration is unknown. None if every
        reference has words.
    """
    empty = tally.lengths == 0
    if not empty.any():
        return None
    words = tally.insertions[empty]
    durations = [utterance.seconds for utterance, chosen in zip(utterances, empty, strict=True) if chosen]
    seconds = None if None in durations else sum(durations)  # type: ignore[arg-type]
    return {
        "clips": len(words),
        "clips_with_words": int((words > 0).sum()),
        "clips_percent": percent(float((words > 0).mean())),
        "words": int(words.sum()),
        "seconds": None if seconds is None else round(seconds, 3),
        "words_per_minute": round(60 * int(words.sum()) / seconds, 4) if seconds else None,
    }


def measured(tally: Tally, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Return what was measured of one system on one test set.

    Args:
        tally: Counts per utterance.
        utterances: The utterances, in the same order.

    Returns:
        The entries of `arkasr.scoring.tally.summary`, and `hallucination` and `breakdown`.
    """
    return {
        **summary(tally, [utterance.speaker for utterance in utterances]),
        "hallucination": hallucination(tally, utterances),
        "breakdown": breakdown(tally, utterances),
    }
