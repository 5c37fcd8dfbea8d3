"""Charts of error rates with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from arkasr.reporting.page.axes import Tick, axis
from arkasr.reporting.page.looks import Look

WIDTH = 380
LEFT, RIGHT = 112, WIDTH - 122  # the room beside them holds labels and values
FIRST, DOT, GAP = 10, 18, 8  # top, height of one value, and space between rows
MOST_LETTERS = 14  # of a label


@dataclass(frozen=True)
class Value:
    """A value in percent of one run, with its 95 % interval, or without one."""

    run: str
    percent: float
    interval: Sequence[float] | None = None

    @property
    def text(self) -> str:
        """The value as text."""
        pair = f" [{self.interval[0]:.1f}, {self.interval[1]:.1f}]" if self.interval else ""
        return f"{self.percent:.1f}{pair}"


@dataclass(frozen=True)
class Dot:
    """A value: positions of the value and of the ends of its interval, and the value as text."""

    look: Look
    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Row:
    """One label of a chart, with its values."""

    label: str
    dots: Sequence[Dot]

    @property
    def y(self) -> float:
        """Position of the label."""
        return sum(dot.y for dot in self.dots) / len(self.dots)

    @property
    def short(self) -> str:
        """The label, cut to the room beside the chart."""
        return self.label if len(self.label) <= MOST_LETTERS else self.label[: MOST_LETTERS - 1] + "…"


@dataclass(frozen=True)
class Intervals:
    """A chart of values with intervals, one or more per row."""

    kind: ClassVar[str] = "intervals"
    title: str
    x_label: str
    rows: Sequence[Row]
    x_ticks: Sequence[Tick]
    bottom: float
    width: int = WIDTH
    left: int = LEFT
    right: int = RIGHT

    @property
    def height(self) -> float:
        """Height with the labels of the axis."""
        return self.bottom + 36

    @property
    def summary(self) -> str:
        """The chart in words."""
        texts = [(row.label, [_in_words(dot, row) for dot in row.dots]) for row in self.rows]
        return f"{self.title}, {self.x_label}. " + ". ".join(f"{label}: {', '.join(dots)}" for label, dots in texts)


def _in_words(dot: Dot, row: Row) -> str:
    return dot.text if dot.look.title == row.label else f"{dot.look.title} {dot.text}"


def intervals(title: str, x_label: str, rows: Mapping[str, Sequence[Value]], looks: Mapping[str, Look]) -> Intervals:
    """Lay out values with intervals.

    Args:
        title: What the chart shows.
        x_label: Quantity and unit.
        rows: One or more values by label.
        looks: Look by run.

    Returns:
        The chart. Its axis begins at 0.
    """
    ends = [end for values in rows.values() for value in values for end in (value.percent, *(value.interval or ()))]
    x_axis, found, top = axis(0.0, max([*ends, 1.0]), LEFT, RIGHT), [], float(FIRST)
    for label, values in rows.items():
        dots = []
        for value in values:
            low, high = value.interval or (value.percent, value.percent)
            y, top = top + DOT / 2, top + DOT
            dots.append(Dot(looks[value.run], x_axis.at(value.percent), y, x_axis.at(low), x_axis.at(high), value.text))
        found.append(Row(label, dots))
        top += GAP
    return Intervals(title, x_label, found, x_axis.ticks(4), top)
