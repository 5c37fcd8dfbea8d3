"""Errors of hypotheses against references: counts per utterance, sums, rates and comparisons.

jiwer counts the errors on normalised text. The error rate is the micro average: the errors of all utterances divided
by the number of all reference words or characters. Words recognised in an utterance with an empty reference count as
insertions.
"""

from __future__ import annotations

from collections.abc import Sequence
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
# The entry of `summary` where nothing was measured.
NO_COUNTS: dict[str, Any] = dict.fromkeys((*SIZES, *COUNTS, "rate_percent", "interval_percent"))


def _percent(value: float) -> float:
    return round(100 * value, 4)


def _percents(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [_percent(value) for value in pair]


def summary(tally: Tally) -> dict[str, Any]:
    """Sum the counts of one run on one test set, and compute its error rate with a 95 % interval.

    Args:
        tally: Counts per utterance.

    Returns:
        Totals, `rate_percent` and `interval_percent`. Both are None if all references are empty.
    """
    length, errors = int(tally.lengths.sum()), int(tally.errors.sum())
    return {
        "utterances": len(tally.hits),
        "reference_length": length,
        "hits": int(tally.hits.sum()),
        "substitutions": int(tally.substitutions.sum()),
        "deletions": int(tally.deletions.sum()),
        "insertions": int(tally.insertions.sum()),
        "errors": errors,
        "utterances_with_errors": int((tally.errors > 0).sum()),
        "empty_references": int((tally.lengths == 0).sum()),
        "rate_percent": _percent(errors / length) if length else None,
        "interval_percent": _percents(bootstrap.interval(tally.errors, tally.lengths)),
    }


def compare_with_base(tally: Tally, base: Tally) -> dict[str, Any]:
    """Compute the change of a run's error rate from Base on the same test set.

    Args:
        tally: Counts of the run per utterance.
        base: Counts of Base, for the same utterances in the same order.

    Returns:
        `difference_percent` in points, its paired 95 % interval `interval_percent`, and `relative_percent`. Values that
        are not defined are None.
    """
    length, errors, base_errors = int(tally.lengths.sum()), int(tally.errors.sum()), int(base.errors.sum())
    return {
        "difference_percent": _percent((errors - base_errors) / length) if length else None,
        "interval_percent": _percents(bootstrap.paired_interval(tally.errors, base.errors, tally.lengths)),
        "relative_percent": _percent(errors / base_errors - 1) if base_errors else None,
    }
