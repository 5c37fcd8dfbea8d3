"""Axes: round labels, positions, and logarithmic scales."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from arkasr.reporting.page.axes import axis, round_values


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (20.1, 22.4, [20.5, 21, 21.5, 22]),
        (-5, 5, [-4, -2, 0, 2, 4]),
        (0, 3e-7, [0, 1e-7, 2e-7, 3e-7]),
    ],
)
def test_round_values_are_multiples_inside_the_axis(low, high, values):
    assert round_values(low, high, 5) == pytest.approx(values)


@pytest.mark.parametrize(("low", "high"), [(0.013, 0.0131), (1, 97531), (-3.7, 0.2), (0, 2000)])
def test_round_values_are_few_and_evenly_spaced(low, high):
    values = round_values(low, high, 5)
    steps = {round((b - a) / (high - low), 9) for a, b in pairwise(values)}
    assert 2 <= len(values) <= 6 and len(steps) == 1 and low <= values[0] and values[-1] <= high + 1e-12


def test_axis_draws_values_between_its_ends():
    found = axis(10, 30, 200, 100)
    assert [found.at(value) for value in (10, 15, 30)] == [200, 175, 100]
    assert [(tick.text, tick.at) for tick in found.ticks(2)] == [("10", 200), ("20", 150), ("30", 100)]


def test_axis_is_logarithmic_only_for_positive_values_that_differ_much():
    assert axis(0.1, 100, 0, 300, may_be_log=True).is_log
    assert not axis(0.0, 100, 0, 300, may_be_log=True).is_log
    assert not axis(1, 20, 0, 300, may_be_log=True).is_log
    assert not axis(0.1, 100, 0, 300).is_log
    found = axis(0.1, 100, 0, 300, may_be_log=True)
    assert [found.at(value) for value in (0.1, 1, 10, 100)] == [0, 100, 200, 300]
    assert found.at(1e9) == 300 and found.at(-1) == 0
    assert [float(tick.text) for tick in found.ticks()] == [0.1, 0.3, 1, 3, 10, 30, 100]


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0, 1e-12])
def test_axis_of_equal_values_reaches_beyond_them(value):
    found = axis(value, value, 0, 100)
    assert found.low < value < found.high and math.isclose(found.at(value), 50, abs_tol=0.1) and found.ticks()
