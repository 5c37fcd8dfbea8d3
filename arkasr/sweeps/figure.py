"""sweep.png: error rates of the points of a sweep, with single trainings, and the other runs as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arkasr.reporting.figures import STYLES, color, put_title
from arkasr.sweeps.rows import Row
from arkasr.sweeps.statistics import measured, rate
from arkasr.sweeps.table import Table
from arkasr.utils.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "sweep.png"
PANEL_INCHES, WIDTH_INCHES, DPI = 3.4, 8.0, 150
MARKERS = "osD^vPX*"
APART = 0.1  # from a mean to its single trainings, where places are 1 apart; curves at one place are twice as far
LONGEST_LABEL = 12  # letters of a label that stays level


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
    heading = f"{table.sweep.title}: means over seeds with 95 % intervals by utterance, and single trainings (dots)"
    put_title(figure, heading)
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
    labels, title = _axis(table)
    runs = [*table.sweep.file.once, *table.sweep.file.shared, *table.sweep.file.runs]
    for number, (run, rows) in enumerate(series.items()):
        shift = 2 * APART * (number - (len(series) - 1) / 2)
        style = Style(color(run, runs) if run else "#000000", MARKERS[number % len(MARKERS)], run or "mean", shift)
        _points(axis, table, name, speakers, rows, style)
    for number, row in enumerate(lines):
        found = measured(table.results[row.label].tallies[name], speakers)
        if found:
            line: dict[str, Any] = {"color": color(row.run, runs), "linestyle": STYLES[number % len(STYLES)]}
            axis.axhline(found["rate_percent"], label=row.label, linewidth=1.5, **line)
    axis.set_xticks(range(len(labels)), list(map(_plain, labels)))
    axis.set_xlim(-0.5, len(labels) - 0.5)
    axis.margins(y=0.1)
    if max(map(len, labels)) > LONGEST_LABEL:
        axis.tick_params(axis="x", labelrotation=20, labelsize=8)
    axis.set(xlabel=_plain(title), ylabel=f"{tested.metric.upper()} (%)")
    axis.set_title(_plain(name), fontsize=10)


class Style(NamedTuple):
    """How one curve is drawn.

    Attributes:
        color: Colour.
        marker: Marker of the means.
        label: Text of the legend.
        shift: By how much it stands to the right of its places, which are 1 apart.
    """

    color: str
    marker: str
    label: str
    shift: float


def _points(
    axis: Axes, table: Table, name: str, speakers: Sequence[str], rows: Sequence[Row | None], style: Style,
) -> None:  # fmt: skip
    """Draw means with intervals, and single trainings as small dots beside them."""
    drawn: list[tuple[float, dict[str, Any]]] = []
    for number, row in enumerate(rows):
        place = number + style.shift
        tallies = table.results[row.label].tallies[name] if row is not None else {}
        if found := measured(tallies, speakers):
            drawn.append((place, found))
            rates = list(map(rate, tallies.values()))
            axis.plot([place + APART] * len(rates), rates, ".", color=style.color, alpha=0.6, markersize=5)
    if not drawn:
        return
    xs, centres = [place for place, _ in drawn], [found["rate_percent"] for _, found in drawn]
    ends = [found["interval_percent"] or [mean, mean] for (_, found), mean in zip(drawn, centres)]
    arms = [[max(mean - low, 0) for mean, (low, _) in zip(centres, ends)],
            [max(high - mean, 0) for mean, (_, high) in zip(centres, ends)]]  # fmt: skip
    line = "-" if _has_numbers(table) else ""
    look: dict[str, Any] = {"color": style.color, "marker": style.marker, "linestyle": line}
    axis.errorbar(xs, centres, arms, label=style.label, capsize=3, linewidth=1.3, **look)


def _lines(table: Table) -> list[Row]:
    """Return the rows that are drawn as lines: those of no point, if the points are on the axis."""
    return [row for row in table.rows if row.point is None] if _has_points(table) else []


def _has_points(table: Table) -> bool:
    return any(row.point is not None and row.point.name for row in table.rows)


def _series(table: Table) -> dict[str, list[Row | None]]:
    """Return the rows of each curve by run, in the order of their places. Without points, one curve holds all rows."""
    if not _has_points(table):
        return {"": list(table.rows)}
    rows = {(row.run, row.point.name): row for row in table.rows if row.point is not None}
    return {run: [rows.get((run, point.name)) for point in table.sweep.points] for run in table.sweep.file.runs}


def _has_numbers(table: Table) -> bool:
    """Return whether the points are numbers of one key, so that a curve through them has a meaning."""
    places = [point.place for point in table.sweep.points]
    return all(len(place) == 1 and type(place[0]) in (int, float) for place in places)


def _axis(table: Table) -> tuple[list[str], str]:
    """Return labels and title of the axis: values of the key if the sweep is a grid of one key, else names."""
    points = table.sweep.points
    if not _has_points(table):
        return [row.label for row in table.rows], ""
    if all(len(point.place) == 1 for point in points):
        values = [point.place[0] for point in points]
        return [f"{value:g}" if isinstance(value, float) else str(value) for value in values], next(
            iter(table.sweep.file.grid)
        )
    return [point.name for point in points], ""
