"""Percentile bootstrap for micro-averaged error rates (Bisani and Ney, ICASSP 2004).

It draws utterances. To draw speakers, which gives wider intervals where the utterances of one speaker are alike, sum
the counts per speaker first (`sums_by_label`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 1000
SEED = 0
LEVEL = 0.95
CHUNK = 100  # resamples drawn at once: bounds memory at CHUNK x utterances


def sums_by_label(values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Sum values per label, such as the errors per speaker.

    Args:
        values: Integer array [N].
        labels: N labels.

    Returns:
        Integer array [number of different labels], in the order of the sorted labels.
    """
    names, places = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    sums = np.zeros(len(names), dtype=np.int64)
    np.add.at(sums, places, values)
    return sums


def resampled_rates(errors: Sequence[np.ndarray], lengths: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Compute error rates of S systems on bootstrap samples of N utterances.

    One sample draws N utterances with replacement. All systems are evaluated on the same samples.

    Args:
        errors: S integer arrays [N], the number of errors per utterance.
        lengths: Integer array [N], the reference length per utterance.
        resamples: Number of bootstrap samples R.
        seed: Seed of the random generator.

    Returns:
        Array [R, S], float64, error rates as fractions. A sample whose references are all empty has the rate NaN.
    """
    generator = np.random.default_rng(seed)
    table = np.stack([*errors, lengths], axis=1)
    sums = []
    for start in range(0, resamples, CHUNK):
        drawn = generator.integers(0, len(lengths), size=(min(CHUNK, resamples - start), len(lengths)))
        sums.append(np.stack([column[drawn].sum(axis=1) for column in table.T], axis=1))
    totals = np.concatenate(sums).astype(np.float64)
    totals[totals[:, -1] == 0, -1] = np.nan
    return totals[:, :-1] / totals[:, -1:]


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(
    errors: np.ndarray, lengths: np.ndarray, resamples: int = NUM_RESAMPLES, seed: int = SEED, level: float = LEVEL
) -> tuple[float, float] | None:
    """Compute the confidence interval of the error rate sum(errors) / sum(lengths).

    Args:
        errors: Integer array [N], the number of errors per utterance.
        lengths: Integer array [N], the reference length per utterance.
        resamples: Number of bootstrap samples.
        seed: Seed of the random generator.
        level: Confidence level, between 0 and 1.

    Returns:
        (low, high) as fractions, or None if all references are empty.
    """
    return _percentiles(resampled_rates([errors], lengths, resamples, seed)[:, 0], level)


def paired_interval(
    errors: np.ndarray,
    other: np.ndarray,
    lengths: np.ndarray,
    resamples: int = NUM_RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Compute the confidence interval of the difference of two error rates on the same bootstrap samples.

    Args:
        errors: Integer array [N], the number of errors per utterance of the first system.
        other: Integer array [N], the same for the system to subtract.
        lengths: Integer array [N], the reference length per utterance.
        resamples: Number of bootstrap samples.
        seed: Seed of the random generator.
        level: Confidence level, between 0 and 1.

    Returns:
        (low, high) of rate(errors) - rate(other) as fractions, or None if all references are empty.
    """
    rates = resampled_rates([errors, other], lengths, resamples, seed)
    return _percentiles(rates[:, 0] - rates[:, 1], level)


def paired_p(
    errors: np.ndarray, other: np.ndarray, lengths: np.ndarray, resamples: int = NUM_RESAMPLES, seed: int = SEED
) -> float | None:
    """Test whether two error rates on the same utterances differ, by a paired bootstrap.

    Args:
        errors: Integer array [N], the number of errors per utterance of the first system.
        other: Integer array [N], the same for the second system.
        lengths: Integer array [N], the reference length per utterance.
        resamples: Number of bootstrap samples R.
        seed: Seed of the random generator. The samples are those of `paired_interval`.

    Returns:
        Two-sided p value: twice the share of samples in which the difference has the rarer sign or is 0, at most 1.
        One sample is added to the count, so the least value is 2 / (R + 1). None if all references are empty.
    """
    rates = resampled_rates([errors, other], lengths, resamples, seed)
    differences = rates[:, 0] - rates[:, 1]
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
