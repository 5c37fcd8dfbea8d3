"""Charts of error rates: per test set, and per duration, speaker and condition. The verdict on each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number
from arkasr.reporting.page.blocks import Charts, Heading, Items, Paragraph, Section, Table, spans, table
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.page.intervals import Intervals, Value, intervals
from arkasr.reporting.page.looks import Look
from arkasr.reporting.tables import Scores

VERDICT = """\
Difference of the error rate from Base in points, with its paired 95 % interval over utterances, which does not include
the variation between seeds."""
SIGNS = (
    "**▼ better**: the interval is below 0",
    "**▲ worse**: the interval is above 0",
    "**● unclear**: the interval holds 0",
)
FACETS = {"duration": "Duration", "condition": "Condition", "speaker": "Speaker"}
MOST_LABELS = 12  # of one facet, those with the most reference words
BREAKDOWN = "Error rates of parts of each test set. Parts with few utterances have wide intervals."


def overview(experiment: Experiment) -> list[Section]:
    """Build the first section: where each run is better than Base and where it is not, and all error rates as charts.

    Args:
        experiment: The experiment.

    Returns:
        The section, or none if no run has a rate.
    """
    sets, scores, looks = experiment.sets, experiment.scores, experiment.looks
    found, charts = _verdicts(sets, scores, looks), _per_set(sets, scores, looks)
    if not charts:
        return []
    signs = Items([spans(sign) for sign in SIGNS])
    text = [Paragraph(spans(" ".join(VERDICT.split()))), signs, found] if found else []
    return [Section("Overview", blocks=[*text, Charts(charts)])]


def _verdicts(sets: Sequence[TestSet], scores: Scores, looks: Mapping[str, Look]) -> Table | None:
    rows = []
    for run, content in scores.items():
        changes = [(content["sets"].get(each.name) or {}).get("against_base") for each in sets]
        if any(changes):
            rows.append([looks[run].title, *map(verdict, changes)])
    header = ["Against Base", *(f"{each.name} ({each.metric.upper()})" for each in sets)]
    return table(header, rows, [False] * len(header)) if rows else None


def verdict(change: Mapping[str, Any] | None) -> str:
    """Say whether a run is better than another one.

    Args:
        change: Result of `arkasr.scoring.significance.compare`, or None.

    Returns:
        The word, the difference in points and its interval, in Markdown. A dash if there is none.
    """
    pair = (change or {}).get("interval_percent")
    if change is None or pair is None or change.get("difference_percent") is None:
        return "-"
    word = "▼ better" if pair[1] < 0 else "▲ worse" if pair[0] > 0 else "● unclear"
    return f"**{word}** {format_number(change['difference_percent'], sign='+')}{format_interval(pair, sign='+')}"


def _per_set(sets: Sequence[TestSet], scores: Scores, looks: Mapping[str, Look]) -> list[Intervals]:
    charts = []
    for each in sets:
        rows = {}
        for run, content in scores.items():
            entry = content["sets"].get(each.name) or {}
            if entry.get("rate_percent") is not None:
                rows[looks[run].title] = [Value(run, entry["rate_percent"], entry.get("interval_percent"))]
        if rows:
            charts.append(intervals(each.name, f"{each.metric.upper()} (%), 95 % interval", rows, looks))
    return charts


def breakdown(experiment: Experiment) -> Section | str:
    """Build the section of error rates by duration, condition and speaker.

    Args:
        experiment: The experiment.

    Returns:
        The section, or why there is none. The charts show Base, the teacher and the runs that are compared with Base.
    """
    sets, scores, looks = experiment.sets, experiment.scores, experiment.looks
    found = Section("Error rate by duration, condition and speaker")
    for each in sets:
        entries = {run: (content["sets"].get(each.name) or {}).get("breakdown") for run, content in scores.items()}
        measured = {run: entry for run, entry in entries.items() if entry}
        facets = [key for key in FACETS if any(len(entry.get(key) or ()) > 1 for entry in measured.values())]
        if facets:
            drawn = {run: measured[run] for run in experiment.shown if run in measured} or measured
            charts = [_facet_chart(each, key, drawn, looks) for key in facets]
            found.blocks += [Heading(each.name), Charts(charts, [looks[run] for run in drawn])]
    if not found.blocks:
        return "scores.json has no parts of a test set by duration, condition or speaker; score again with stage 5"
    found.blocks.insert(0, Paragraph(spans(BREAKDOWN)))
    return found


def _facet_chart(tested: TestSet, key: str, measured: Mapping[str, Any], looks: Mapping[str, Look]) -> Intervals:
    rows: dict[str, list[Value]] = {}
    lengths: dict[str, int] = {}
    for run, entry in measured.items():
        for part in entry.get(key) or ():
            lengths[part["label"]] = part["reference_length"] or 0
            if part["rate_percent"] is not None:
                rows.setdefault(part["label"], []).append(
                    Value(run, part["rate_percent"], part.get("interval_percent"))
                )
    longest = sorted(rows, key=lambda label: -lengths[label])[:MOST_LABELS]
    kept = {label: values for label, values in rows.items() if label in longest}
    left_out = f", the {len(kept)} of {len(rows)} with most words" if len(kept) < len(rows) else ""
    return intervals(f"{FACETS[key]}{left_out}", f"{tested.metric.upper()} (%), 95 % interval", kept, looks)
