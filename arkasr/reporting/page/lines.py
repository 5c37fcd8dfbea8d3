"""Charts of curves over the steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arkasr.reporting.page.axes import Axis, Tick, axis
from arkasr.reporting.page.looks import Look

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 12, 12, HEIGHT - 36
MOST_POINTS = 60  # of a curve, which then shows means of groups of rows, and their range

Series = tuple[np.ndarray, np.ndarray]  # steps and values, two arrays [N] with N > 0


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        look: How the run is drawn.
        path: The line as an SVG path.
        band: The area of its range, as an SVG path. Empty: none.
        end: Position of the last point, where its mark is.
        note: Its values in words.
    """

    look: Look
    path: str
    band: str
    end: tuple[float, float]
    note: str


@dataclass(frozen=True)
class Lines:
    """A chart of curves."""

    kind: ClassVar[str] = "lines"
    title: str
    x_label: str
    curves: Sequence[Curve]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM

    @property
    def summary(self) -> str:
        """The chart in words."""
        notes = (f"{curve.look.title}: {curve.note}" for curve in self.curves)
        return f"{self.title} over {self.x_label}. {'. '.join(notes)}"


Point = tuple[float, float, float, float]


def grouped(steps: np.ndarray, values: np.ndarray) -> list[Point]:
    """Reduce a curve to at most `MOST_POINTS` points.

    Args:
        steps: Array [N], N > 0.
        values: Array [N].

    Returns:
        Per group of successive rows: mean step, mean value, minimum and maximum.
    """
    groups = min(len(steps), MOST_POINTS)
    pairs = zip(np.array_split(steps, groups), np.array_split(values, groups), strict=True)
    return [(float(x.mean()), float(y.mean()), float(y.min()), float(y.max())) for x, y in pairs]


def lines(title: str, series: Mapping[str, Series], looks: Mapping[str, Look], from_zero: bool) -> Lines:
    """Lay out curves.

    Args:
        title: Quantity and unit.
        series: Curve by run, at least one.
        looks: Look by run.
        from_zero: Whether a linear axis begins at 0.

    Returns:
        The chart. Its axis is logarithmic if the values are positive and differ much.
    """
    points = {run: grouped(*pair) for run, pair in series.items()}
    means = [point[1] for curve in points.values() for point in curve]
    y_axis = axis(min(means), max(means), BOTTOM, TOP, may_be_log=True)
    if not y_axis.is_log:
        low = min(point[2] for curve in points.values() for point in curve)
        high = max(point[3] for curve in points.values() for point in curve)
        y_axis = axis(min(low, 0.0) if from_zero else low, high, BOTTOM, TOP)
    x_axis = axis(0.0, max(float(steps.max()) for steps, _ in series.values()), LEFT, RIGHT)
    curves = [
        Curve(
            looks[run],
            _path(curve, x_axis, y_axis),
            _band(curve, x_axis, y_axis),
            (x_axis.at(curve[-1][0]), y_axis.at(curve[-1][1])),
            _note(series[run][1]),
        )
        for run, curve in points.items()
    ]
    title += ", logarithmic axis" if y_axis.is_log else ""
    return Lines(title, "optimizer step", curves, x_axis.ticks(), y_axis.ticks())


def _path(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    """Return the line through the means. One point is shown by its mark."""
    return "M" + "L".join(f"{x_axis.at(x)},{y_axis.at(mean)}" for x, mean, _, _ in points)


def _band(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    """Return the area between minimum and maximum, empty if they are the same everywhere."""
    if all(low == high for _, _, low, high in points):
        return ""
    upper = [f"{x_axis.at(x)},{y_axis.at(high)}" for x, _, _, high in points]
    lower = [f"{x_axis.at(x)},{y_axis.at(low)}" for x, _, low, _ in reversed(points)]
    return f"M{'L'.join([*upper, *lower])}Z"


def _note(values: np.ndarray) -> str:
    return f"first {values[0]:.4g}, last {values[-1]:.4g}, lowest {values.min():.4g}, highest {values.max():.4g}"
