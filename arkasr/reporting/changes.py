"""The table of changes from Base, and the gap recovery where there is a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.tables import Scores, marker, row_title


def gap_recovery(before: float, after: float, teacher: float) -> float | None:
    """Compute the gap recovery rate (arXiv:2604.13016): (after - before) / (teacher - before).

    The value is the same for accuracies and for error rates.

    Args:
        before: Error rate or accuracy before distillation.
        after: The same after distillation.
        teacher: The same of the teacher.

    Returns:
        The share of the gap to the teacher that was closed, or None if there is no gap.
    """
    return None if teacher == before else (after - before) / (teacher - before)


def _paper_change(row: str, column: str) -> str:
    rate, base = paper_numbers.rate(row, column), paper_numbers.rate("base", column)
    return "-" if rate is None or base is None else f"{100 * (rate / base - 1):+.1f} %"


def teacher_leads(scores: Scores, test_set: str) -> bool:
    """Return whether the teacher is better than Base beyond chance, so that there is a gap to recover.

    Args:
        scores: Content of scores.json by run.
        test_set: Name of the test set.

    Returns:
        True if the paired interval of the difference of error rates, teacher minus Base, is below 0.
    """
    pair = _teacher_change(scores, test_set).get("interval_percent")
    return pair is not None and pair[1] < 0


def _teacher_change(scores: Scores, test_set: str) -> dict[str, Any]:
    entry = scores.get("teacher", {"sets": {}})["sets"].get(test_set) or {}
    return entry.get("against_base") or {}


def _gap_recovery_cell(scores: Scores, run: str, test_set: str) -> str:
    entries = [scores[name]["sets"].get(test_set) or {} for name in ("base", run, "teacher")]
    rates: list[Any] = [entry.get("rate_percent") for entry in entries]
    share = None if None in rates or not teacher_leads(scores, test_set) else gap_recovery(*rates)
    return "-" if share is None else f"{100 * share:.1f} %"


def _compared(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    """Return the test sets on which both Base and the teacher were scored."""
    return [each.name for each in sets if all(each.name in scores[run]["sets"] for run in ("base", "teacher"))]


def gap_notes(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    """Say why there is no gap recovery.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        One sentence for each test set on which the teacher does not lead. Empty without a teacher or Base.
    """
    if "teacher" not in scores or "base" not in scores:
        return []
    notes = []
    for name in _compared(sets, scores):
        change = _teacher_change(scores, name)
        if not teacher_leads(scores, name):
            difference = format_number(change.get("difference_percent"), sign="+")
            difference += format_interval(change.get("interval_percent"), sign="+")
            notes.append(
                f"No gap recovery on {name}: the interval of the teacher's difference from Base ({difference} points) "
                "is not below 0."
            )
    return notes


def changes(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format the change of each run from Base in Markdown.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Relative change, difference in points with its paired interval, and the paper's relative change. The last
        columns hold the gap recovery per test set on which the teacher leads. Empty if Base is not among the
        runs or is the only run.
    """
    if "base" not in scores or len(scores) == 1:
        return ""
    columns, rows = paper_numbers.columns(sets), []
    compared = _compared(sets, scores) if "teacher" in scores else []
    recovery_sets = [name for name in compared if teacher_leads(scores, name)]  # `gap_notes` explains the others
    for run in scores:
        if run == "base":
            continue
        cells = [_change_cell(scores, run, each.name) for each in sets]
        cells += [_paper_change(paper_numbers.row(run, scores[run]), column) for column in columns.values()]
        cells += [_gap_recovery_cell(scores, run, name) for name in recovery_sets]
        rows.append([row_title(run, scores[run]), *cells])
    header = ["Model", *(f"{each.name} relative (points [95 %])" for each in sets)]
    header += [f"paper: {column} relative" for column in columns.values()]
    return markdown_table([*header, *(f"{name} gap recovery" for name in recovery_sets)], rows)


def _change_cell(scores: Scores, run: str, test_set: str) -> str:
    change = (scores[run]["sets"].get(test_set) or {}).get("against_base")
    if change is None or change["difference_percent"] is None:
        return "-"
    relative = "-" if change["relative_percent"] is None else f"{change['relative_percent']:+.1f} %"
    points = format_number(change["difference_percent"], sign="+")
    points += format_interval(change["interval_percent"], sign="+")
    doubtful = marker(scores[run], test_set) or marker(scores["base"], test_set)
    return f"{relative} ({points}){doubtful}"
