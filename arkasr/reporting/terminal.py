"""Table 1 for a terminal of 80 columns, with the warnings about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import islice

from arkasr.evaluation import inputs, paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting import tables, uncertainty
from arkasr.reporting.markdown import aligned, format_number
from arkasr.reporting.profile_table import profile_lines
from arkasr.reporting.shown_sets import is_miniature, metric_names, title
from arkasr.reporting.tables import Scores

WIDTH = 80


def table(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format Table 1, one line per test set and run.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        The table with a title line, then the teacher, the warnings, and test sets with few speakers. "vs Base" is the
        relative change. "paper" is the paper's error rate in percent, for test sets of the paper. If the table is wider
        than 80 columns, or the metrics differ, each test set has its own line above its rows.
    """
    columns, metric = paper_numbers.columns(sets), metric_names(sets)
    mixed = " or " in metric
    header: tuple[str, ...] = ("model", "error %" if mixed else f"{metric} %", "", "95 % interval", "vs Base")
    header += ("paper" if mixed else f"paper {metric}",) if columns else ()
    groups = {each.name: _lines(each, scores, bool(columns)) for each in sets}
    lines: list[tuple[str, ...]] = [("test set", *header)]
    for name, rows in groups.items():
        lines += [(name if index == 0 else "", *cells) for index, cells in enumerate(rows)]
    texts = aligned(lines, 2)
    if mixed or max(map(len, texts)) > WIDTH:
        texts = _grouped(sets, header, list(groups.values()))
    note = _miniature(bool(columns)) if is_miniature(sets) else ""
    return "\n".join([f"Table 1: {title(sets)}{note}", "", *texts, *_profiles(sets, scores), *_notes(sets, scores)])


def _profiles(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    """Return the lines of the error rates by scoring profile, if there are several. Wide ones are grouped by set."""
    lines = profile_lines(sets, scores)
    if not lines:
        return []
    texts = aligned(lines, 2)
    if max(map(len, texts)) > WIDTH:
        texts = []
        for (label, *_), text in zip(lines, aligned([line[1:] for line in lines], 1), strict=True):
            texts += [*([label] if label and texts else []), f"  {text}"]
    return ["", "Error % by scoring profile (docs/scoring.md)", "", *texts]


def _lines(tested: TestSet, scores: Scores, paper: bool) -> list[tuple[str, ...]]:
    """Return the cells of one test set, one line per run that was scored on it."""
    lines = []
    for run, content in scores.items():
        if tested.name in content["sets"]:
            row = paper_numbers.row(run, content)
            rate = [format_number(paper_numbers.rate(row, tested.column))] if paper else []
            lines.append((paper_numbers.title(run), *_cells(content, tested.name), *rate))
    return lines


def _grouped(sets: Sequence[TestSet], header: tuple[str, ...], groups: list[list[tuple[str, ...]]]) -> list[str]:
    """Return the lines of the table with the name of each test set above its rows."""
    first, *others = aligned([header, *(line for lines in groups for line in lines)], 1)
    found, rest = [f"  {first}"], iter(others)
    for each, lines in zip(sets, groups, strict=True):
        found += [f"{each.name} ({each.metric.upper()})", *(f"  {text}" for text in islice(rest, len(lines)))]
    return found


def _miniature(paper: bool) -> str:
    return " (miniature, not comparable to the paper)" if paper else " (miniature)"


def _cells(content: dict, test_set: str) -> list[str]:
    entry = content["sets"][test_set]
    pair, change = entry["interval_percent"], (entry.get("against_base") or {}).get("relative_percent")
    interval = "-" if pair is None else f"{format_number(pair[0])} to {format_number(pair[1])}"
    mark = "!" if tables.marker(content, test_set) else ""
    return [format_number(entry["rate_percent"]), mark, interval, "-" if change is None else f"{change:+.1f} %"]


def _notes(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    teacher = scores.get("teacher", {}).get("teacher")
    notes = [f"Teacher: {inputs.describe_teacher(teacher)}"] if teacher else []
    notes += [f"! {where}: {clause}." for where, clause in tables.warnings(scores)]
    notes += uncertainty.few_speakers(sets, scores)
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for note in notes]
    return ["", *wrapped] if wrapped else []
