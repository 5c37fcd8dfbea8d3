"""Numbers of a sweep's table against independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from arkasr.scoring.significance import compare
from arkasr.scoring.tally import Tally
from arkasr.sweeps.repetitions import Repetition, first_roundings
from arkasr.sweeps.statistics import (
    added,
    difference,
    measured,
    pairs,
    rate,
    spread_over_roundings,
    student_t,
)

SPEAKERS = [f"s{number % 7}" for number in range(60)]


def tally(seed: int, share: float = 0.3) -> Tally:
    generator, lengths = np.random.default_rng(seed), np.random.default_rng(99).integers(3, 9, 60)
    wrong = generator.binomial(lengths, share)
    deleted = generator.binomial(wrong, 0.3)
    return Tally(lengths - wrong, wrong - deleted, deleted, generator.poisson(0.2, 60))


TALLIES = {Repetition(seed): tally(seed) for seed in (1, 2, 3)}
CONTROL = {Repetition(seed): tally(seed + 10, 0.4) for seed in (1, 2, 3)}


def test_rate_of_added_tallies_is_the_mean_of_the_rates():
    assert rate(added(TALLIES.values())) == pytest.approx(np.mean([rate(one) for one in TALLIES.values()]))
    assert math.isnan(rate(Tally(*(np.zeros(2, dtype=np.int64),) * 4)))


def test_first_roundings_count_each_seed_once():
    values = {Repetition(2, 3): "c", Repetition(1, 5): "b", Repetition(1, 0): "a"}
    assert first_roundings(values) == {Repetition(1, 0): "a", Repetition(2, 3): "c"}


def test_spread_over_roundings_is_pooled_over_seeds():
    values = {Repetition(1, 0): 10.0, Repetition(1, 5): 14.0, Repetition(2, 5): 23.0, Repetition(2, 0): 20.0}
    assert spread_over_roundings(values) == pytest.approx(
        math.sqrt((np.var([10, 14], ddof=1) + np.var([20, 23], ddof=1)) / 2)
    )
    assert spread_over_roundings({Repetition(1): 1.0, Repetition(2): 2.0}) is None


def test_measured_has_mean_intervals_and_ends():
    found = measured(TALLIES, SPEAKERS)
    rates = [rate(one) for one in TALLIES.values()]
    assert found["rate_percent"] == pytest.approx(np.mean(rates), abs=1e-4)
    assert (found["lowest"], found["highest"], found["trainings"], found["seeds"]) == (min(rates), max(rates), 3, 3)
    for key in ("interval_percent", "interval_by_speaker_percent"):
        low, high = found[key]
        assert low < found["rate_percent"] < high
    assert found["sd_seeds"] == pytest.approx(np.std(rates, ddof=1)) and found["sd_roundings"] is None
    assert measured({}, SPEAKERS) == {}


def test_roundings_change_only_their_own_spread():
    more = TALLIES | {Repetition(1, 1): tally(40), Repetition(1, 2): tally(41)}
    found, before = measured(more, SPEAKERS), measured(TALLIES, SPEAKERS)
    rates = [rate(more[Repetition(1, number)]) for number in range(3)]
    assert found == before | {"trainings": 5, "sd_roundings": pytest.approx(np.std(rates, ddof=1))}
    change, before = difference(more, CONTROL, SPEAKERS), difference(TALLIES, CONTROL, SPEAKERS)
    assert change == before | {"sd_roundings": pytest.approx(np.std(rates, ddof=1))}  # one control for all


def test_interval_of_the_mean_is_that_of_a_bootstrap_over_utterances():
    lengths = TALLIES[Repetition(1)].lengths
    errors = np.mean([one.errors for one in TALLIES.values()], axis=0)
    draws = np.random.default_rng(5).integers(0, 60, (20000, 60))
    expected = np.quantile(100 * errors[draws].sum(1) / lengths[draws].sum(1), [0.025, 0.975])
    assert measured(TALLIES, SPEAKERS)["interval_percent"] == pytest.approx(expected, abs=0.7)


def test_shared_control_is_used_for_all_roundings():
    ours = {Repetition(1, 0): tally(1), Repetition(1, 4): tally(2), Repetition(2): tally(3)}
    found = pairs(ours, {Repetition(1): CONTROL[Repetition(1)]})
    assert list(found) == [Repetition(1, 0), Repetition(1, 4)]
    assert all(other is CONTROL[Repetition(1)] for _, other in found.values())
    own = pairs(ours, {Repetition(1, 4): CONTROL[Repetition(2)], Repetition(1): CONTROL[Repetition(1)]})
    assert own[Repetition(1, 4)][1] is CONTROL[Repetition(2)]


def test_run_trained_once_is_paired_with_each_seed():
    once, single = {Repetition(1, is_once=True): tally(7)}, tally(7)
    ours = {Repetition(1): tally(1), Repetition(1, 4): tally(2), Repetition(2): tally(3)}
    assert list(pairs(ours, once)) == list(ours)
    assert all(other is once[Repetition(1, is_once=True)] for _, other in pairs(ours, once).values())
    assert list(pairs(once, ours)) == [Repetition(1), Repetition(2)]  # the first rounding of each seed
    assert [other for _, other in pairs(once, ours).values()] == [ours[Repetition(1)], ours[Repetition(2)]]
    assert len(pairs(once, once)) == 1 and pairs(once, {}) == pairs({}, once) == {}
    change, reverse = difference(once, CONTROL, SPEAKERS), difference(CONTROL, once, SPEAKERS)
    expected = [rate(single) - rate(other) for other in CONTROL.values()]
    assert change["seeds"] == 3 and change["difference_percent"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert change["interval_seeds_percent"] == pytest.approx(
        list(scipy.stats.ttest_1samp(expected, 0).confidence_interval())
    )
    assert reverse["difference_percent"] == -change["difference_percent"] and reverse["p_seeds"] == change["p_seeds"]
    found = measured(once, SPEAKERS)
    assert (found["trainings"], found["seeds"], found["sd_seeds"], found["sd_roundings"]) == (1, 1, None, None)


def test_comparison_of_equal_counts_does_not_depend_on_their_number():
    """The counts of a run that is trained once are added for each seed."""
    single = {Repetition(1): tally(1)}, {Repetition(1): tally(11, 0.4)}
    found = [difference(ours, theirs, SPEAKERS) for ours, theirs in (single, [_for_seeds(each) for each in single])]
    keys = ("difference_percent", "interval_percent", "interval_by_speaker_percent", "p_matched_pairs", "p_bootstrap")
    assert [found[1][key] for key in keys] == [pytest.approx(found[0][key]) for key in keys]


def _for_seeds(tallies):
    return {Repetition(seed): one for seed in (1, 2, 3) for one in tallies.values()}


def test_difference_is_that_of_the_added_trainings_and_of_student_over_seeds():
    found = difference(TALLIES, CONTROL, SPEAKERS)
    expected = compare(added(TALLIES.values()), added(CONTROL.values()), SPEAKERS)
    assert {key: found[key] for key in expected} == expected
    ours, theirs = ([rate(one) for one in each.values()] for each in (TALLIES, CONTROL))
    test = scipy.stats.ttest_rel(ours, theirs)
    assert found["p_seeds"] == pytest.approx(test.pvalue)
    assert found["interval_seeds_percent"] == pytest.approx(list(test.confidence_interval()))
    assert found["seeds_better"] == found["seeds"] == 3 and found["difference_percent"] < 0
    assert difference(TALLIES, {}, SPEAKERS) == {}


def test_student_needs_two_seeds_and_a_spread():
    assert student_t([1.0]) == (None, None)
    assert student_t([2.0, 2.0]) == ([2.0, 2.0], None)
