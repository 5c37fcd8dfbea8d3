"""Figures of a set of runs, as PNG: loss, VUSS and overlap over training steps, and error rates as bars."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.shown_sets import is_miniature, labels, metric_names, title
from arkasr.utils.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Metrics = dict[str, list[dict[str, Any]]]

# The palette of Okabe and Ito, which is safe for colour-blind readers. A run has the same colour in all figures.
COLORS = {
    "teacher": "#000000",
    "base": "#E69F00",
    "base_opd": "#0072B2",
    "base_td": "#009E73",
    "base_td_opd": "#D55E00",
}
OTHER_COLORS = ("#CC79A7", "#56B4E9", "#F0E442", "#999999", "#882255", "#44AA99")  # the last three are not of it
STYLES = ("-", "--", "-.", ":")
WIDTH_INCHES, DPI = 8.0, 150  # 1200 pixels wide
LETTERS_PER_INCH = 10  # of a title, so that words of wide letters fit too
MOST_BARS = 16  # with upright numbers
MOST_LETTERS = {False: 75, True: 105}  # of all labels in one line, by whether they are small
SMOOTH_FROM = 40  # minimum number of rows to smooth a curve


def color(run: str, runs: Sequence[str]) -> str:
    """Return the colour of one run, the same in all figures.

    Args:
        run: Name of the run.
        runs: Names of all runs in the figures.

    Returns:
        Colour as "#RRGGBB".
    """
    others = [name for name in runs if name not in COLORS]
    return COLORS.get(run) or OTHER_COLORS[others.index(run) % len(OTHER_COLORS)]


def _canvas(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.grid(axis="y", color="#dddddd", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    figure.savefig(draft, format="png")
    publish(draft, path)
    return path


def _heading(figure: Figure, text: str, axes: Iterable[Axes]) -> None:
    """Put the title above the axes and one legend below them, so that they do not cover data."""
    pairs = [pair for axis in axes for pair in zip(*axis.get_legend_handles_labels())]
    put_title(figure, text)
    if pairs:
        figure.legend(*zip(*pairs), loc="outside lower center", ncols=min(len(pairs), 5), frameon=False, fontsize=9)


def put_title(figure: Figure, text: str) -> None:
    """Put a title above a figure, in lines that fit into its width.

    Args:
        figure: The figure.
        text: The title.
    """
    figure.suptitle(_plain(textwrap.fill(text, int(LETTERS_PER_INCH * figure.get_figwidth()))), fontsize=11)


def _plain(text: str) -> str:
    """Return a text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def running_mean(values: np.ndarray) -> np.ndarray:
    """Smooth a curve with a centred moving average over a twentieth of its rows.

    Args:
        values: Array [N].

    Returns:
        Array [N]. At both ends the window is cut to the existing rows.
    """
    half = max(len(values) // 40, 1)
    return np.array([np.nanmean(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))])


def _curve(axis: Axes, run: str, metrics: Metrics, key: str, style: str) -> None:
    """Draw one metric of one run over its steps. Long curves: the rows thin and pale, the running mean on top."""
    rows = [row for row in metrics[run] if row.get(key) is not None]
    steps, values = np.array([row["step"] for row in rows]), np.array([row[key] for row in rows], dtype=float)
    run_color = color(run, list(metrics))
    if len(rows) >= SMOOTH_FROM:
        axis.plot(steps, values, color=run_color, linewidth=0.7, alpha=0.35)
        values = running_mean(values)
    marker, label = "o" if len(rows) == 1 else None, _plain(paper_numbers.title(run))
    axis.plot(steps, values, color=run_color, linestyle=style, linewidth=1.8, label=label, marker=marker)


def _smoothing_note(metrics: Metrics, runs: Iterable[str]) -> str:
    return " (pale: as logged, strong: running mean)" if any(len(metrics[run]) >= SMOOTH_FROM for run in runs) else ""


def _split(metrics: Metrics) -> tuple[list[str], list[str]]:
    """Return the supervised runs and the distilled runs. Runs without a logged loss are in neither list."""
    logged = {run: rows for run, rows in metrics.items() if any(row.get("loss") is not None for row in rows)}
    distilled = [run for run, rows in logged.items() if any("vuss" in row for row in rows)]
    return [run for run in logged if run not in distilled], distilled


def losses(path: Path, name: str, metrics: Metrics) -> Path | None:
    """Draw the training loss over steps, in one panel for supervised runs and one for distilled runs.

    Args:
        path: PNG file to write.
        name: Name of the corpus, for the title.
        metrics: Training rows by run.

    Returns:
        The path, or None if no run has training rows.
    """
    kinds = ("supervised (cross-entropy, CTC)", "on-policy distillation, equation (1)")
    panels = [(kind, runs) for kind, runs in zip(kinds, _split(metrics)) if runs]
    if not panels:
        return None
    figure, axes = _canvas(1, len(panels), 4.2)
    for axis, (kind, runs) in zip(axes[0], panels):
        for index, run in enumerate(runs):
            _curve(axis, run, metrics, "loss", STYLES[index % len(STYLES)])
        axis.set_title(kind, fontsize=10)
        axis.set(xlabel="optimizer step", ylabel="training loss (nats)", ylim=(0, None))
    _heading(figure, f"{name}: training loss{_smoothing_note(metrics, metrics)}", axes.flat)
    return _save(figure, path)


def supports(path: Path, name: str, metrics: Metrics) -> Path | None:
    """Draw VUSS and the overlap ratio of the distilled runs over steps.

    Args:
        path: PNG file to write.
        name: Name of the corpus, for the title.
        metrics: Training rows by run.

    Returns:
        The path, or None if there is no distilled run.
    """
    runs = _split(metrics)[1]
    if not runs:
        return None
    figure, axes = _canvas(2, 1, 5.6, sharex=True)
    for index, run in enumerate(runs):
        _curve(axes[0, 0], run, metrics, "vuss", STYLES[index % len(STYLES)])
        _curve(axes[1, 0], run, metrics, "overlap", STYLES[index % len(STYLES)])
    axes[0, 0].set_ylabel("VUSS (tokens per position)")
    axes[1, 0].set(xlabel="optimizer step", ylabel="overlap ratio (top k)")
    _heading(figure, f"{name}: VUSS and overlap ratio{_smoothing_note(metrics, runs)}", axes[0])
    return _save(figure, path)


def error_bars(path: Path, sets: Sequence[TestSet], scores: dict[str, dict[str, Any]]) -> Path | None:
    """Draw error rates as bars with 95 % intervals, grouped by test set.

    Args:
        path: PNG file to write.
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        The path, or None if no run has an error rate. Runs and test sets without one have no bar.
    """
    drawn = {run: entries for run, content in scores.items() if (entries := _measured(sets, content))}
    if not drawn:
        return None
    figure, axes = _canvas(1, 1, 4.5)
    axis, width = axes[0, 0], 0.8 / len(drawn)
    small = len(drawn) * len(sets) > MOST_BARS
    for index, (run, entries) in enumerate(drawn.items()):
        offset = (index - (len(drawn) - 1) / 2) * width
        _bars(axis, entries, offset, width, color(run, list(scores)), _plain(paper_numbers.title(run)), small)
    ticks = [_plain(_wrapped(label, MOST_LETTERS[small] // len(sets))) for label in labels(sets).values()]
    axis.set_xticks(range(len(sets)), ticks, fontsize=8 if small else None)
    axis.set(xlabel="test set", ylabel=f"{metric_names(sets)} (%)")
    _heading(figure, f"{_title(sets)}: error rates with 95 % bootstrap intervals", [axis])
    return _save(figure, path)


def _wrapped(label: str, width: int) -> str:
    """Break a label into lines that do not touch those of its neighbours. The metric has a line of its own."""
    parts = label.replace(" (", "\n(").split("\n")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, max(width, 5)))


def _title(sets: Sequence[TestSet]) -> str:
    return title(sets) + (", miniature" if is_miniature(sets) else "")


def _measured(sets: Sequence[TestSet], content: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the entries with an error rate, by the index of their test set."""
    entries = enumerate(content["sets"].get(each.name) or {} for each in sets)
    return {i: entry for i, entry in entries if entry.get("rate_percent") is not None and entry["interval_percent"]}


def _bars(
    axis: Axes, sets: dict[int, dict[str, Any]], offset: float, width: float, fill: str, label: str, small: bool
) -> None:
    """Draw the bars of one run, beside those of other runs. `small`: numbers for narrow bars."""
    style: dict[str, Any] = {"fontsize": 6, "rotation": 90} if small else {"fontsize": 8}
    positions, rates = np.array(list(sets)) + offset, np.array([entry["rate_percent"] for entry in sets.values()])
    lows, highs = np.array([entry["interval_percent"] for entry in sets.values()]).T
    arms = np.stack([rates - lows, highs - rates]).clip(min=0)
    axis.bar(positions, rates, 0.9 * width, color=fill, label=label)
    axis.errorbar(positions, rates, yerr=arms, fmt="none", ecolor="#777777", capsize=3, linewidth=1)
    for position, rate, high in zip(positions, rates, highs):
        tip = (position, max(high, rate))
        axis.annotate(f"{rate:.1f}", tip, (0, 2), textcoords="offset points", ha="center", **style)


def draw(folder: Path, sets: Sequence[TestSet], scores: dict[str, dict[str, Any]], metrics: Metrics) -> list[Path]:
    """Write `error_rates.png`, `loss.png` and `vuss.png`. A figure without data is not written, and an old one removed.

    Args:
        folder: Folder for the figures.
        sets: The test sets.
        scores: Content of scores.json by run.
        metrics: Training rows by run, in the order of steps.

    Returns:
        Paths of the figures that were written.
    """
    name = _title(sets)
    paths = {
        folder / "error_rates.png": lambda path: error_bars(path, sets, scores),
        folder / "loss.png": lambda path: losses(path, name, metrics),
        folder / "vuss.png": lambda path: supports(path, name, metrics),
    }
    drawn = [path for path, function in paths.items() if function(path) is not None]
    for path in paths.keys() - set(drawn):
        path.unlink(missing_ok=True)
    return drawn
