"""Comparison of two systems: hand-computed values, an independent implementation, and the rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from arkasr.scoring.significance import compare, matched_pairs
from arkasr.scoring.tally import Tally, count


def tally_of(errors, length=10):
    errors = np.asarray(errors, dtype=np.int64)
    zeros = np.zeros_like(errors)
    return Tally(np.full(len(errors), length) - errors, errors, zeros, zeros)


def test_compare_gives_points_intervals_and_relative_change():
    base, better = count(["a b c d"] * 4, ["a x y z"] * 4, "wer"), count(["a b c d"] * 4, ["a b c z"] * 4, "wer")
    got = compare(better, base, ["s", "s", "t", "t"])
    assert got["difference_percent"] == -50 and got["interval_percent"] == [-50, -50]
    assert got["interval_by_speaker_percent"] == [-50, -50] and got["relative_percent"] == pytest.approx(-66.6667)
    assert got["p_bootstrap"] == pytest.approx(2 / 1001) and got["p_matched_pairs"] is None  # no variance
    perfect = count(["a b c d"] * 4, ["a b c d"] * 4, "wer")
    assert compare(better, perfect)["relative_percent"] is None
    assert compare(better, perfect)["interval_by_speaker_percent"] is None


def test_compare_of_equal_systems_finds_no_difference():
    same = tally_of([1, 2, 0, 3])
    got = compare(same, same, ["a", "b", "c", "d"])
    assert (got["difference_percent"], got["p_matched_pairs"], got["p_bootstrap"]) == (0, 1, 1)
    assert got["interval_by_speaker_percent"] == [0, 0]


def test_compare_without_reference_words_has_no_values():
    got = compare(count(["", ""], ["a", ""], "wer"), count(["", ""], ["", ""], "wer"))
    assert got["difference_percent"] is None and got["interval_percent"] is None and got["p_bootstrap"] is None


def test_speakers_widen_the_interval_if_their_utterances_are_alike():
    generator = np.random.default_rng(0)
    per_speaker = np.repeat(generator.integers(-3, 4, 12), 25)  # 12 speakers, each with one difference
    got = compare(tally_of(4 + per_speaker), tally_of(np.full(300, 4)), [f"s{i // 25}" for i in range(300)])
    width, by_speaker = (np.ptp(got[key]) for key in ("interval_percent", "interval_by_speaker_percent"))
    assert by_speaker > 3 * width  # the square root of 25 is 5


def test_matched_pairs_equals_the_normal_distribution_of_scipy():
    generator = np.random.default_rng(1)
    errors, other = generator.integers(0, 6, size=(2, 80))
    differences = errors - other
    statistic = differences.mean() / stats.sem(differences)
    assert matched_pairs(errors, other) == pytest.approx(2 * stats.norm.sf(abs(statistic)), rel=1e-9)


@pytest.mark.parametrize(
    ("errors", "other", "expected"), [([], [], None), ([2], [1], None), ([1], [1], 1.0), ([0, 2], [1, 1], 1.0)]
)
def test_matched_pairs_of_few_utterances(errors, other, expected):
    assert matched_pairs(np.array(errors), np.array(other)) == expected


@pytest.mark.slow
def test_both_tests_have_the_nominal_rate_of_false_alarms():
    generator = np.random.default_rng(2)
    found = {"p_matched_pairs": 0, "p_bootstrap": 0}
    for _ in range(200):
        got = compare(tally_of(generator.poisson(1.5, 100)), tally_of(generator.poisson(1.5, 100)))
        for key in found:
            found[key] += got[key] < 0.05
    assert all(2 <= number <= 22 for number in found.values()), found  # 10 expected, standard deviation 3.1


def test_both_tests_find_a_clear_difference():
    generator = np.random.default_rng(3)
    got = compare(tally_of(generator.poisson(1.0, 200)), tally_of(generator.poisson(2.0, 200)))
    assert got["p_matched_pairs"] < 1e-4 and got["p_bootstrap"] == pytest.approx(2 / 1001)
