"""Error rates by scoring profile, side by side: in Markdown and for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.shown_sets import labels

Rows = list[tuple[str, str, list[Mapping[str, Any]]]]


def profile_names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the profiles of error rates.

    Args:
        entries: Entries of scores.json, of a run and a test set each.

    Returns:
        Different names with versions, such as "`unicode` version 1".
    """
    return [*dict.fromkeys(f"`{each['profile']['name']}` version {each['profile']['version']}" for each in entries)]


def _profiles_of(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what was measured by each profile. Entries of older versions have one."""
    return entry.get("profiles") or {entry["profile"]["name"]: entry}


def _columns(sets: Sequence[TestSet], scores: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Return the metrics of each profile, in the order of the first test set that has it."""
    found: dict[str, set[str]] = {}
    for each in sets:
        for entry in (content["sets"][each.name] for content in scores.values() if each.name in content["sets"]):
            for name, measured in _profiles_of(entry).items():
                found.setdefault(name, set()).add(measured["metric"].upper())
    return found


def _rows(sets: Sequence[TestSet], scores: Mapping[str, Mapping[str, Any]], columns: Iterable[str]) -> Rows:
    names, rows = labels(sets), []
    for each in sets:
        for run, content in scores.items():
            if each.name in content["sets"]:
                measured = _profiles_of(content["sets"][each.name])
                rows.append((names[each.name], run, [measured.get(column, {}) for column in columns]))
    return rows


def by_profile(sets: Sequence[TestSet], scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Format error rates by profile in Markdown: one row per test set and run, one column per profile.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Error rates in percent with 95 % intervals. A dash: the test set does not have the profile, or it was not used.
        Empty if there is only one profile.
    """
    columns = _columns(sets, scores)
    if len(columns) < 2:
        return ""
    header = ["Set", "Model", *(f"`{name}` {'/'.join(sorted(metrics))}" for name, metrics in columns.items())]
    rows = [
        [label, paper_numbers.title(run), *(_cell(measured) for measured in found)]
        for label, run, found in _rows(sets, scores, columns)
    ]
    return markdown_table(header, rows)


def _cell(measured: Mapping[str, Any]) -> str:
    return format_number(measured.get("rate_percent")) + format_interval(measured.get("interval_percent"))


def profile_lines(sets: Sequence[TestSet], scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the cells of the same table without intervals, for a terminal.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Header and rows. Empty if there is only one profile.
    """
    columns = _columns(sets, scores)
    if len(columns) < 2:
        return []
    lines, last = [("test set", "model", *columns)], ""
    for label, run, found in _rows(sets, scores, columns):
        rates = (format_number(measured.get("rate_percent")) for measured in found)
        lines.append((label if label != last else "", paper_numbers.title(run), *rates))
        last = label
    return lines
