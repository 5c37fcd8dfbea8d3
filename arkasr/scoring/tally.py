"""Errors of hypotheses against references: counts per utterance, sums and rates.

jiwer counts the errors on normalised text. The error rate is the micro average: the errors of all utterances divided
by the number of all reference words or characters. Words recognised in an utterance with an empty reference count as
insertions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arkasr.scoring import bootstrap
from arkasr.scoring.alignment import align_all


@dataclass(frozen=True)
class Tally:
    """Alignment counts of one run on the N utterances of one test set: int64 arrays [N]."""

    hits: np.ndarray
    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Number of errors per utterance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def lengths(self) -> np.ndarray:
        """Reference length per utterance."""
        return self.hits + self.substitutions + self.deletions


def count(references: Sequence[str], hypotheses: Sequence[str], metric: str) -> Tally:
    """Align hypotheses with references and count the edit operations.

    Args:
        references: N normalised references.
        hypotheses: N normalised hypotheses.
        metric: `wer`, `cer` or `mer` (see `alignment.tokens`).

    Returns:
        Counts per utterance.
    """
    alignments = align_all(references, hypotheses, metric)
    counts = {kind: np.zeros(len(references), dtype=np.int64) for kind in ("equal", "substitute", "delete", "insert")}
    for index, chunks in enumerate(alignments):
        for chunk in chunks:
            # The reference extent of an insertion is 0, and so is the hypothesis extent of a deletion.
            extent = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            counts[chunk.type][index] += extent
    return Tally(*counts.values())


SIZES = ("utterances", "reference_length", "empty_references")
COUNTS = ("hits", "substitutions", "deletions", "insertions", "errors", "utterances_with_errors")
RATES = ("rate_percent", "interval_percent", "interval_by_speaker_percent", "utterance_error_percent")
# The entry of `summary` where nothing was measured.
NO_COUNTS: dict[str, Any] = dict.fromkeys((*SIZES, *COUNTS, *RATES, "speakers"))


def percent(value: float) -> float:
    """Return a fraction in percent.

    Args:
        value: The fraction.

    Returns:
        Percent, rounded to four decimals.
    """
    return round(100 * value, 4)


def percents(pair: tuple[float, float] | None) -> list[float] | None:
    """Return an interval in percent.

    Args:
        pair: (low, high) as fractions, or None.

    Returns:
        [low, high] in percent (see `percent`), or None.
    """
    return None if pair is None else [percent(value) for value in pair]


def num_speakers(speakers: Sequence[str]) -> int | None:
    """Count speakers.

    Args:
        speakers: Speaker per utterance. An empty name is unknown.

    Returns:
        Number of different speakers, or None if the speaker of some utterance is unknown.
    """
    return len(set(speakers)) if speakers and all(speakers) else None


def interval_by_speaker(
    interval: Callable[..., tuple[float, float] | None], columns: Sequence[np.ndarray], speakers: Sequence[str]
) -> list[float] | None:
    """Compute an interval by drawing speakers instead of utterances: a cluster bootstrap.

    Args:
        interval: Function of `arkasr.scoring.bootstrap` that computes the interval.
        columns: Its arguments, integer arrays [N], one value per utterance.
        speakers: Speaker per utterance.

    Returns:
        [low, high] in percent, or None with fewer than two speakers, or if some are unknown.
    """
    if (num_speakers(speakers) or 0) < 2:
        return None
    return percents(interval(*(bootstrap.sums_by_label(column, speakers) for column in columns)))


def summary(tally: Tally, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """Sum the counts of one run on one test set, and compute its error rate with 95 % intervals.

    Args:
        tally: Counts per utterance.
        speakers: Speaker per utterance. Empty if unknown.

    Returns:
        Totals, `rate_percent`, its intervals `interval_percent` (utterances drawn) and `interval_by_speaker_percent`
        (speakers drawn), `utterance_error_percent` (the share of utterances with an error) and `speakers` (number).
        Rates and intervals are None if all references are empty. The interval by speaker and `speakers` are also None
        if some speakers are unknown, and the interval is None with one speaker.
    """
    length, errors = int(tally.lengths.sum()), int(tally.errors.sum())
    wrong = int((tally.errors > 0).sum())
    return {
        "utterances": len(tally.hits),
        "reference_length": length,
        "hits": int(tally.hits.sum()),
        "substitutions": int(tally.substitutions.sum()),
        "deletions": int(tally.deletions.sum()),
        "insertions": int(tally.insertions.sum()),
        "errors": errors,
        "utterances_with_errors": wrong,
        "empty_references": int((tally.lengths == 0).sum()),
        "speakers": num_speakers(speakers),
        "rate_percent": percent(errors / length) if length else None,
        "interval_percent": percents(bootstrap.interval(tally.errors, tally.lengths)),
        "interval_by_speaker_percent": interval_by_speaker(bootstrap.interval, (tally.errors, tally.lengths), speakers),
        "utterance_error_percent": percent(wrong / len(tally.hits)) if len(tally.hits) else None,
    }
