"""Axes of charts: round values, and positions in units of SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOG_FROM = 30  # ratio of the highest to the lowest value from which an axis is logarithmic


@dataclass(frozen=True)
class Tick:
    """A label of an axis and its position."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, drawn from `start` to `end` in units of SVG. `is_log`: logarithmic."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return the position of a value.

        Args:
            value: The value. On a logarithmic axis, values outside of it are drawn at its ends.

        Returns:
            The position, rounded to a tenth.
        """
        scale: Callable[[float], float] = math.log10 if self.is_log else float
        inside = min(max(value, self.low), self.high) if self.is_log else value
        share = (scale(inside) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return round(self.start + (self.end - self.start) * share, 1)

    def ticks(self, most: int = 5) -> list[Tick]:
        """Choose labels.

        Args:
            most: Maximum number of steps between them on a linear axis.

        Returns:
            Round values on the axis.
        """
        values = _powers(self.low, self.high) if self.is_log else round_values(self.low, self.high, most)
        return [Tick(self.at(value), f"{value:.6g}") for value in values]


def axis(low: float, high: float, start: float, end: float, may_be_log: bool = False) -> Axis:
    """Make an axis for values.

    Args:
        low: Lowest value.
        high: Highest value.
        start: Position of the lower end.
        end: Position of the upper end.
        may_be_log: Whether it becomes logarithmic if the values are positive and differ by more than a factor of 30.

    Returns:
        The axis. If all values are equal, it reaches beyond them.
    """
    if may_be_log and low > 0 and high > LOG_FROM * low:
        return Axis(low, high, start, end, is_log=True)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - abs(low or 1.0) / 2, high + abs(high or 1.0) / 2
    return Axis(low, high, start, end)


def round_values(low: float, high: float, most: int) -> list[float]:
    """Choose multiples of 1, 2, 2.5 or 5 times a power of ten.

    Args:
        low: Lower end.
        high: Upper end, above `low`.
        most: Maximum number of steps between the values.

    Returns:
        The multiples from `low` to `high`.
    """
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * (1 - 1e-9))
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 3) if len(powers) <= 4 else (1,)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
