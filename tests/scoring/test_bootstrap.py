"""Bootstrap intervals of cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from arkasr.scoring import bootstrap


def test_interval_of_two_utterances_matches_hand_computation():
    # Two draws from {0, 1} errors of one word each: rates 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap.interval(np.array([0, 1]), np.array([1, 1])) == (0.0, 1.0)
    rates = bootstrap.resampled_rates([np.array([0, 1])], np.array([1, 1]), resamples=4000, seed=1)[:, 0]
    assert [np.mean(rates == value) for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_interval_of_many_words_matches_normal_approximation():
    errors = np.tile([0, 1, 0, 0], 100)  # 400 one-word utterances, 25 % wrong: 1.96 sqrt(p q / n) = 4.24 points
    low, high = bootstrap.interval(errors, np.ones(400, dtype=int))
    assert (low, high) == pytest.approx((0.25 - 0.0424, 0.25 + 0.0424), abs=0.006)


def test_interval_weighs_utterances_by_length():
    # Ratio of sums of an utterance of 9 words without errors and one of 1 word with 1 error: 0, 1/10 or 1.
    rates = bootstrap.resampled_rates([np.array([0, 1])], np.array([9, 1]), resamples=200, seed=0)
    assert set(np.round(rates[:, 0], 6)) == {0.0, 0.1, 1.0}


def test_interval_ignores_samples_without_reference_words():
    low, high = bootstrap.interval(np.array([1, 2]), np.array([2, 0]))
    assert (low, high) == (0.5, 1.5)


def test_paired_interval_uses_same_utterances_for_both_runs():
    generator = np.random.default_rng(3)
    base, lengths = generator.integers(1, 9, size=60), np.full(60, 10)
    assert bootstrap.paired_interval(base, base, lengths) == (0.0, 0.0)
    assert bootstrap.paired_interval(base - 1, base, lengths) == pytest.approx((-0.1, -0.1))
    low, high = bootstrap.interval(base, lengths)
    assert high - low > 0.05


def test_interval_is_reproducible():
    errors, lengths = np.arange(30) % 4, np.full(30, 5)
    assert bootstrap.interval(errors, lengths) == bootstrap.interval(errors, lengths)
