"""Tables in Markdown of parts of the test sets: durations, conditions, speakers, and clips without speech."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_number, markdown_table
from arkasr.reporting.shown_sets import labels
from arkasr.reporting.tables import Scores


def _parts(scores: Scores, name: str, kind: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of a breakdown of one test set, by run and label."""
    found = {}
    for run, content in scores.items():
        rows = ((content["sets"].get(name) or {}).get("breakdown") or {}).get(kind)
        if rows:
            found[run] = {row["label"]: row for row in rows}
    return found


def by_class(sets: Sequence[TestSet], scores: Scores, kind: str) -> str:
    """Format the error rates of the classes of a breakdown. Their intervals are in scores.json.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.
        kind: `duration` or `condition`.

    Returns:
        Markdown table: one row per test set and class, one column per run. Empty without such a breakdown.
    """
    rows = []
    for name, label in labels(sets).items():
        parts = _parts(scores, name, kind)
        classes = next(iter(parts.values()), {})
        for part, facts in classes.items():
            rates = [(parts.get(run, {}).get(part) or {}).get("rate_percent") for run in scores]
            sizes = [str(facts["utterances"]), str(facts["reference_length"])]
            rows.append([label, part, *sizes, *map(format_number, rates)])
    header = ["Set", kind.capitalize(), "Clips", "Length", *(paper_numbers.title(run) for run in scores)]
    return markdown_table(header, rows) if rows else ""


def by_speaker(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format how much the error rates of speakers differ. The rates of all speakers are in scores.json.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Markdown table: best, median and worst speaker per test set and run. Empty if no speaker is known.
    """
    rows = []
    for name, label in labels(sets).items():
        for run, parts in _parts(scores, name, "speaker").items():
            rates = {part: row["rate_percent"] for part, row in parts.items() if row["rate_percent"] is not None}
            if rates:
                worst = max(rates, key=rates.__getitem__)
                values = map(format_number, (min(rates.values()), median(rates.values()), rates[worst]))
                rows.append([label, paper_numbers.title(run), str(len(parts)), *values, worst])
    header = ["Set", "Model", "Speakers", "Best %", "Median %", "Worst %", "Worst speaker"]
    return markdown_table(header, rows) if rows else ""


def _silent(sets: Sequence[TestSet], scores: Scores) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, label in labels(sets).items():
        for run, content in scores.items():
            found = (content["sets"].get(name) or {}).get("hallucination")
            if found:
                yield label, run, found


def on_silence(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format what was recognised in clips with an empty reference.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Markdown table, one row per test set and run. Empty if every reference has words.
    """
    rows = []
    for label, run, found in _silent(sets, scores):
        counts = [str(found["clips"]), f"{found['clips_with_words']} ({format_number(found['clips_percent'], 1)} %)"]
        minute = format_number(found["words_per_minute"], 1)
        rows.append([label, paper_numbers.title(run), *counts, str(found["words"]), minute])
    header = ["Set", "Model", "Clips", "With words", "Words", "Per minute"]
    return markdown_table(header, rows) if rows else ""
