"""The curves of training: loss, dev error, VUSS, overlap, and shares of the student's transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from arkasr.evaluation.paper_numbers import title as run_title
from arkasr.reporting.figures import Metrics
from arkasr.reporting.page.blocks import Charts, Fold, Items, Paragraph, Section, spans, table
from arkasr.reporting.page.lines import MOST_POINTS, Series, lines
from arkasr.reporting.page.looks import Look


class Quantity(NamedTuple):
    """A key of metrics.jsonl, its title with the unit, and whether its axis begins at 0."""

    key: str
    title: str
    from_zero: bool = True
    factor: float = 1.0


LOSS = "loss"
QUANTITIES = (
    Quantity("dev_error", "Error rate on the dev clips (%)", factor=100.0),
    Quantity("dev_error_ctc", "Error rate of the CTC head on the dev clips (%)", factor=100.0),
    Quantity("vuss", "VUSS (tokens per position)", from_zero=False),
    Quantity("overlap", "Overlap of both top-k sets (share)", from_zero=False),
    Quantity("stop_rate", "Transcripts with a stop token (share)", from_zero=False),
    Quantity("cut_rate", "Transcripts cut at the token cap (share)"),
    Quantity("loop_rate", "Transcripts that end in a loop (share)"),
    Quantity("empty_rate", "Empty transcripts (share)"),
)
READING = f"""\
Each point is one logged step. Of a run with more than {MOST_POINTS} rows, the line is the mean of groups of successive
rows, and the area behind it is their range."""


def series(rows: Sequence[Mapping[str, float | None]], key: str) -> Series | None:
    """Return one quantity of one run.

    Args:
        rows: Training rows of the run.
        key: Key of the quantity.

    Returns:
        Steps and values, None if it was never logged. Rows without a number, and steps without counted positions, whose
        VUSS is logged as 0, are left out.
    """
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    found = [pair for pair in found if key != "vuss" or pair[1]]
    if not found:
        return None
    steps, values = np.array(found, dtype=float).T
    return steps, values


def _of(metrics: Metrics, runs: Sequence[str], key: str, factor: float = 1.0) -> dict[str, Series]:
    found = {run: series(metrics[run], key) for run in runs}
    return {run: (pair[0], factor * pair[1]) for run, pair in found.items() if pair is not None}


def section(metrics: Metrics, looks: Mapping[str, Look]) -> Section | str:
    """Build the section of the curves.

    Args:
        metrics: Training rows by run.
        looks: Look by run.

    Returns:
        The section, or why there is none.
    """
    runs = [run for run, rows in metrics.items() if rows]
    if not runs:
        return "no run that was scored has a metrics.jsonl with training rows"
    distilled = [run for run in runs if any("vuss" in row for row in metrics[run])]
    supervised = [run for run in runs if run not in distilled]
    drawn = {
        "Loss of supervised training (nats per token)": _of(metrics, supervised, LOSS),
        "Loss of distillation (nats per position)": _of(metrics, distilled, LOSS),
    }
    factors = {quantity.title: quantity for quantity in QUANTITIES}
    drawn |= {q.title: _of(metrics, runs, q.key, q.factor) for q in QUANTITIES}
    constant, charts = [], []
    for name, found in drawn.items():
        value = _constant(found)
        if value is not None:
            constant.append(f"{name}: {value:g} at every logged step of {', '.join(run_title(run) for run in found)}")
        elif found:
            from_zero = name not in factors or factors[name].from_zero
            charts.append(lines(name, found, looks, from_zero))
    legend = [looks[run] for run in runs]
    shown = [Paragraph(spans(" ".join(READING.split()))), Charts(charts, legend)]
    if constant:
        shown += [Paragraph(spans("Not drawn, because they never changed:")), Items([spans(line) for line in constant])]
    numbers = [
        [name, looks[run].title, f"{len(pair[0])}", *(f"{value:.4g}" for value in _statistics(pair[1]))]
        for name, found in drawn.items()
        for run, pair in found.items()
    ]
    header = ["Quantity", "Run", "Rows", "First", "Last", "Lowest", "Highest"]
    right = [False, False, *[True] * 5]
    return Section("Training curves", blocks=[*shown, Fold("The curves as numbers", [table(header, numbers, right)])])


def _constant(found: Mapping[str, Series]) -> float | None:
    """Return the only value of several rows, None if there are others, or just one row per run."""
    values = np.concatenate([pair[1] for pair in found.values()]) if found else np.array([])
    several = any(len(pair[1]) > 1 for pair in found.values())
    return float(values[0]) if several and values.min() == values.max() else None


def _statistics(values: np.ndarray) -> list[float]:
    return [float(value) for value in (values[0], values[-1], values.min(), values.max())]
