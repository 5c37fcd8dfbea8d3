"""sweep.png: error rates of the points of a sweep, with single trainings, and the shared runs as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arkasr.reporting.figures import COLORS, OTHER_COLORS, STYLES
from arkasr.sweeps.rows import Row
from arkasr.sweeps.statistics import measured, rate
from arkasr.sweeps.table import Table
from arkasr.utils.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "sweep.png"
PANEL_INCHES, WIDTH_INCHES, DPI = 3.4, 8.0, 150
MARKERS = "osD^vPX*"
LONGEST_LABEL = 12  # letters of a label that stays level
WIDE_RANGE = 20  # ratio of the largest to the smallest value from which the axis is logarithmic


def draw(table: Table, expdir: Path) -> list[Path]:
    """Draw the figure, one panel per test set.

    Args:
        table: The table.
        expdir: Folder of the sweep.

    Returns:
        The figure. Empty if nothing was measured. An old one is then removed.
    """
    from matplotlib.figure import Figure

    path, names = expdir / NAME, [name for name in table.sets if _has_results(table, name)]
    if not names:
        path.unlink(missing_ok=True)
        return []
    figure = Figure(figsize=(WIDTH_INCHES, PANEL_INCHES * len(names) + 0.8), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for axis, name in zip(axes, names):
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        _panel(axis, table, name)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    figure.suptitle(
        f"{table.sweep.title}: error rates with 95 % intervals by utterance".replace("$", r"\$"), fontsize=11
    )
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    draft = path.with_name(f"{NAME}.part")
    figure.savefig(draft, format="png", metadata={"Software": None})
    publish(draft, path)
    return [path]


def _plain(text: str) -> str:
    """Return a text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _has_results(table: Table, name: str) -> bool:
    return any(results.tallies[name] for results in table.results.values())


def _panel(axis: Axes, table: Table, name: str) -> None:
    tested, speakers = table.sets[name]
    lines, series = _lines(table), _series(table)
    places, labels, title = _axis(table)
    colors = [*COLORS.values(), *OTHER_COLORS]
    for number, (run, rows) in enumerate(series.items()):
        color = COLORS.get(run) or colors[number % len(colors)]
        label = f"{run} (mean)" if len(series) > 1 or lines else "mean"
        _points(axis, table, name, speakers, list(zip(places, rows)), color, MARKERS[number % len(MARKERS)], label)
    for number, row in enumerate(lines):
        found = measured(table.results[row.label].tallies[name], speakers)
        if found:
            style = STYLES[number % len(STYLES)]
            color = COLORS.get(row.run) or OTHER_COLORS[number % len(OTHER_COLORS)]
            axis.axhline(found["rate_percent"], color=color, linestyle=style, linewidth=1.5, label=row.label)
    if title and min(places) > 0 and max(places) / min(places) >= WIDE_RANGE:
        axis.set_xscale("log")
    axis.set_xticks(places, list(map(_plain, labels)), minor=False)
    axis.minorticks_off()
    if max(map(len, labels)) > LONGEST_LABEL:
        axis.tick_params(axis="x", labelrotation=20, labelsize=8)
    axis.set(xlabel=_plain(title), ylabel=f"{tested.metric.upper()} (%)")
    axis.set_title(_plain(name), fontsize=10)


def _points(
    axis: Axes, table: Table, name: str, speakers: Sequence[str], placed: Sequence[tuple[float, Row | None]],
    color: str, marker: str, label: str,
) -> None:  # fmt: skip
    """Draw means with intervals, and single trainings as small dots."""
    drawn: list[tuple[float, dict[str, Any]]] = []
    for place, row in placed:
        tallies = table.results[row.label].tallies[name] if row is not None else {}
        if found := measured(tallies, speakers):
            drawn.append((place, found))
            axis.plot(
                [place] * len(tallies), list(map(rate, tallies.values())), ".", color=color, alpha=0.45, markersize=5
            )
    if not drawn:
        return
    xs, means = [place for place, _ in drawn], [found["rate_percent"] for _, found in drawn]
    ends = [found["interval_percent"] or [mean, mean] for (_, found), mean in zip(drawn, means)]
    arms = [[max(mean - low, 0) for mean, (low, _) in zip(means, ends)],
            [max(high - mean, 0) for mean, (_, high) in zip(means, ends)]]  # fmt: skip
    style = "-" if table.sweep.file.grid and not table.sweep.file.points else ""
    axis.errorbar(xs, means, arms, color=color, marker=marker, linestyle=style, capsize=3, linewidth=1.3, label=label)


def _lines(table: Table) -> list[Row]:
    """Return the rows that are drawn as lines: the shared runs, if the points are on the axis."""
    return [row for row in table.rows if row.point is None] if _has_points(table) else []


def _has_points(table: Table) -> bool:
    return any(row.point is not None and row.point.name for row in table.rows)


def _series(table: Table) -> dict[str, list[Row | None]]:
    """Return the rows of each curve, by the places on the axis."""
    if not _has_points(table):
        return {"trainings": list(table.rows)}
    rows = {(row.run, row.point.name): row for row in table.rows if row.point is not None}
    return {run: [rows.get((run, point.name)) for point in table.sweep.points] for run in table.sweep.file.runs}


def _axis(table: Table) -> tuple[list[float], list[str], str]:
    """Return places, labels and title of the axis: values of the key if the sweep is a grid of one key of numbers."""
    file, points = table.sweep.file, table.sweep.points
    if not _has_points(table):
        return [float(place) for place in range(len(table.rows))], [row.label for row in table.rows], ""
    values = [point.place[0] for point in points if len(point.place) == 1]
    if len(values) == len(points) and all(isinstance(value, int | float) for value in values) and len(set(values)) > 1:
        return [float(value) for value in values], [f"{value:g}" for value in values], next(iter(file.grid))
    return [float(place) for place in range(len(points))], [point.name for point in points], ""
