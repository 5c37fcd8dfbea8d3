"""The points of a sweep: combinations of a grid, and named lists of overrides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from arkasr.config.load import is_run_name
from arkasr.errors import UserError

OF_ONE_RUN = re.compile(r"runs\.([\w-]+)\.(.+)")  # a key that applies to one run: runs.teacher.train.steps
MOST_POINTS = 1000
MOST_LETTERS = 100  # of the name of a point, which is a folder


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        name: Name of its folder and row. Empty for the only point of a sweep without grid and points.
        overrides: Values by key of the configuration.
        place: Values of the grid's keys, in their order. Empty for a point that is not from the grid.
    """

    name: str
    overrides: Mapping[str, Any] = field(hash=False)
    place: tuple[Any, ...] = ()


def make_points(grid: Mapping[str, Sequence[Any]], listed: Mapping[str, Mapping[str, Any]], where: str) -> list[Point]:
    """Make the points of a sweep, those of the grid first.

    Args:
        grid: Values by key of the configuration.
        listed: Overrides by name of the point.
        where: The sweep file, for messages.

    Returns:
        The points. Without grid and listed points, one without name and overrides.

    Raises:
        UserError: A key has no values, a value has no name, a name is not allowed or stands for two points, or there
            are too many points.
    """
    count = 1
    for key, values in grid.items():
        if not values:
            raise UserError(f"{where}: grid.{key} has no values; list at least one")
        count *= len(values)
    if count + len(listed) > MOST_POINTS:
        raise UserError(f"{where}: {count + len(listed)} points are more than {MOST_POINTS}; split the sweep")
    labels = _labels(list(grid))
    points = []
    for place in product(*grid.values()) if grid else ():
        parts = [f"{label}-{_text(value, key, where)}" for label, key, value in zip(labels, grid, place)]
        points.append(Point("_".join(parts), dict(zip(grid, place)), place))
    points += [Point(name, dict(overrides)) for name, overrides in listed.items()]
    _check(points, where)
    return points or [Point("", {})]


def overrides_of(run: str, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge layers of overrides for one run. Later layers win, and keys of this run win over keys of all runs.

    Args:
        run: Name of the run. Empty leaves out the keys of single runs.
        *layers: Values by key. A key `runs.NAME.KEY` applies to the run NAME only.

    Returns:
        Values by key of the configuration.
    """
    common: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            found = OF_ONE_RUN.fullmatch(key)
            if found is None:
                common[key] = value
            elif found[1] == run:
                own[found[2]] = value
    return common | own


def _labels(keys: list[str]) -> list[str]:
    """Return the last part of each key, or the whole key if several end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    repeated = Counter(last)
    return [short if repeated[short] == 1 else key for short, key in zip(last, keys)]


def _text(value: Any, key: str, where: str) -> str:
    if isinstance(value, dict | list) or value is None:
        raise UserError(
            f"{where}: grid.{key} has a value that cannot name a point; list the point with a name under `points`"
        )
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.-]+", "-", text.replace("+", ""))


def _check(points: Sequence[Point], where: str) -> None:
    for point in points:
        if not is_run_name(point.name) or len(point.name) > MOST_LETTERS:
            raise UserError(
                f"{where}: point {point.name[:MOST_LETTERS]!r} cannot be the name of a folder; use at most "
                f"{MOST_LETTERS} letters, digits, `_`, `-` and `.` under `points`"
            )
    twice = [name for name, count in Counter(point.name.lower() for point in points).items() if count > 1]
    if twice:
        raise UserError(f"{where}: two points are called {twice[0]}; give them names of their own under `points`")
