"""Charts of curves: their points are the logged values, also of long runs and of runs with one row."""

from __future__ import annotations

import re

import numpy as np
import pytest

from arkasr.reporting.page.lines import BOTTOM, LEFT, MOST_POINTS, RIGHT, TOP, grouped, lines
from arkasr.reporting.page.looks import looks

LOOKS = looks({"base": "Base", "base_opd": "Base+OPD"})


def points(path):
    return np.array([[float(number) for number in pair.split(",")] for pair in re.findall(r"[-\d.]+,[-\d.]+", path)])


def test_lines_draw_the_values_of_each_row():
    steps, values = np.array([1.0, 2, 4]), np.array([8.0, 4, 2])
    chart = lines("Loss", {"base": (steps, values)}, LOOKS, from_zero=True)
    drawn = points(chart.curves[0].path)
    assert np.allclose((drawn[:, 0] - LEFT) / (RIGHT - LEFT) * 4, steps, atol=0.01)
    assert np.allclose((BOTTOM - drawn[:, 1]) / (BOTTOM - TOP) * 8, values, atol=0.01)
    assert chart.curves[0].band == "" and chart.curves[0].end == tuple(drawn[-1])
    assert "first 8, last 2, lowest 2, highest 8" in chart.summary


def test_grouped_keeps_mean_and_range_of_long_curves():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1003)
    found = np.array(grouped(np.arange(1, 1004), values))
    sizes = np.array([len(part) for part in np.array_split(values, MOST_POINTS)])
    assert len(found) == MOST_POINTS and np.isclose((found[:, 1] * sizes).sum(), values.sum())
    assert found[:, 2].min() == values.min() and found[:, 3].max() == values.max()
    assert (np.diff(found[:, 0]) > 0).all()


def test_lines_show_the_range_of_long_curves_as_a_band():
    steps = np.arange(1.0, 501)
    values = np.where(steps % 2, 1.0, 3.0)
    chart = lines("VUSS", {"base_opd": (steps, values)}, LOOKS, from_zero=False)
    band = points(chart.curves[0].band)
    assert {TOP, BOTTOM} == set(band[:, 1]) and len(band) == 2 * MOST_POINTS
    assert len(points(chart.curves[0].path)) == MOST_POINTS


def test_lines_of_one_row_and_of_equal_values_have_finite_positions():
    for values in (np.array([0.5]), np.array([0.0, 0.0])):
        steps = np.arange(1.0, len(values) + 1)
        chart = lines("x", {"base": (steps, values)}, LOOKS, from_zero=True)
        assert np.isfinite(points(chart.curves[0].path)).all() and np.isfinite(chart.curves[0].end).all()


def test_lines_name_a_logarithmic_axis():
    pair = np.arange(1.0, 4), np.array([1000.0, 10, 1])
    assert lines("Loss", {"base": pair}, LOOKS, True).title == "Loss, logarithmic axis"
    assert lines("Loss", {"base": (pair[0], pair[1] / pair[1])}, LOOKS, True).title == "Loss"


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_lines_use_the_look_of_the_run(run):
    chart = lines("Loss", {run: (np.array([1.0, 2]), np.array([1.0, 2]))}, LOOKS, True)
    assert chart.curves[0].look is LOOKS[run]
