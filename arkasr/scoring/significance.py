"""Compare two systems on the same utterances: paired intervals, and two tests of significance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from arkasr.scoring import bootstrap
from arkasr.scoring.tally import Tally, interval_by_speaker, percent, percents


def matched_pairs(errors: np.ndarray, other: np.ndarray) -> float | None:
    """Test the difference of two systems by matched pairs (Gillick and Cox, ICASSP 1989).

    The segments are the utterances. Z_i is the difference of the numbers of errors in segment i. Under the null
    hypothesis, W = mean(Z) / (std(Z) / sqrt(n)) has a standard normal distribution if n is large, at least about 50.

    Args:
        errors: Integer array [N], the number of errors per utterance of the first system.
        other: Integer array [N], the same for the second system.

    Returns:
        The two-sided p value. None if it is not defined: fewer than two utterances, or the same difference everywhere.
    """
    differences = np.asarray(errors, dtype=np.float64) - other
    if len(differences) and not differences.any():
        return 1.0
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    if spread == 0:
        return None
    statistic = float(differences.mean()) / (spread / math.sqrt(len(differences)))
    return math.erfc(abs(statistic) / math.sqrt(2))


def compare(tally: Tally, other: Tally, speakers: Sequence[str] = ()) -> dict[str, Any]:
    """Compute the change from one system to another on the same test set.

    Args:
        tally: Counts of the system per utterance.
        other: Counts of the system to compare with, for the same utterances in the same order.
        speakers: Speaker per utterance. Empty if unknown.

    Returns:
        `difference_percent` in points, its paired 95 % intervals `interval_percent` (utterances drawn) and
        `interval_by_speaker_percent` (speakers drawn), `relative_percent`, and the two-sided p values
        `p_matched_pairs` and `p_bootstrap` (of utterances). Values that are not defined are None.
    """
    lengths, length = tally.lengths, int(tally.lengths.sum())
    errors, other_errors = int(tally.errors.sum()), int(other.errors.sum())
    columns = tally.errors, other.errors, lengths
    return {
        "difference_percent": percent((errors - other_errors) / length) if length else None,
        "interval_percent": percents(bootstrap.paired_interval(*columns)),
        "interval_by_speaker_percent": interval_by_speaker(bootstrap.paired_interval, columns, speakers),
        "relative_percent": percent(errors / other_errors - 1) if other_errors else None,
        "p_matched_pairs": matched_pairs(tally.errors, other.errors),
        "p_bootstrap": bootstrap.paired_p(*columns),
    }
