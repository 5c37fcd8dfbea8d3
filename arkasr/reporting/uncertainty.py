"""Tables in Markdown of intervals by utterance and by speaker, and of the significance of the change from Base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.shown_sets import labels
from arkasr.reporting.tables import Scores, marker

FEW_SPEAKERS = 20  # with fewer, drawing speakers underestimates how much they differ
LEAST_P = 0.001  # smaller values are shown as "<0.001"


def _entries(sets: Sequence[TestSet], scores: Scores) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield run, label of the test set and its entry in scores.json, for all that were scored."""
    for name, label in labels(sets).items():
        for run, content in scores.items():
            if name in content["sets"]:
                yield run, label + marker(content, name), content["sets"][name]


def _interval(pair: Sequence[float] | None, sign: str = "") -> str:
    return format_interval(pair, sign).strip() or "-"


def format_p(value: float | None) -> str:
    """Format a p value.

    Args:
        value: The p value, or None if it is not defined.

    Returns:
        Three decimals, "<0.001" for smaller values, "-" for None.
    """
    return f"<{LEAST_P:g}" if value is not None and value < LEAST_P else format_number(value, 3)


def intervals(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format the error rates with both kinds of intervals, and the share of utterances with an error.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Markdown table, one row per test set and run. Empty if no score has an utterance error rate (older versions).
    """
    rows = []
    for run, label, entry in _entries(sets, scores):
        if entry.get("utterance_error_percent") is not None:
            pairs = [_interval(entry.get(key)) for key in ("interval_percent", "interval_by_speaker_percent")]
            cells = [format_number(entry["rate_percent"]), *pairs, str(entry.get("speakers") or "-")]
            rows.append([label, paper_numbers.title(run), *cells, format_number(entry["utterance_error_percent"], 1)])
    header = ["Set", "Model", "Error %", "95 % by utterance", "95 % by speaker", "Speakers", "Utterances with errors %"]
    return markdown_table(header, rows) if rows else ""


def significance(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format the significance of the changes from Base.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Markdown table, one row per test set and run besides Base. Empty if nothing was compared.
    """
    rows = []
    for run, label, entry in _entries(sets, scores):
        change = entry.get("against_base") or {}
        if "p_bootstrap" in change:
            pairs = [_interval(change.get(key), "+") for key in ("interval_percent", "interval_by_speaker_percent")]
            tests = [format_p(change.get(key)) for key in ("p_matched_pairs", "p_bootstrap")]
            points = format_number(change["difference_percent"], sign="+")
            rows.append([label, paper_numbers.title(run), points, *pairs, *tests])
    header = ["Set", "Model", "Points", "95 % by utterance", "95 % by speaker", "p matched pairs", "p bootstrap"]
    return markdown_table(header, rows) if rows else ""


def _speakers(sets: Sequence[TestSet], scores: Scores) -> dict[str, int | None]:
    """Return the number of speakers of each test set that was scored, None if some are unknown."""
    return {
        label.removesuffix(" (!)"): entry.get("speakers")
        for _, label, entry in _entries(sets, scores)
        if entry.get("utterance_error_percent") is not None
    }


def few_speakers(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    """Say which test sets have few speakers.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        One sentence that names the test sets and their number of speakers, or none.
    """
    few = [f"{name} ({number})" for name, number in _speakers(sets, scores).items() if 0 < (number or 0) < FEW_SPEAKERS]
    consequence = "Intervals by speaker are then too narrow, and the results may not hold for other speakers."
    return [f"Fewer than {FEW_SPEAKERS} speakers: {', '.join(few)}. {consequence}"] if few else []


def unknown_speakers(sets: Sequence[TestSet], scores: Scores) -> list[str]:
    """Say which test sets have no interval by speaker.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        One sentence that names the test sets, or none.
    """
    unknown = [name for name, number in _speakers(sets, scores).items() if not number]
    reason = "Not all clips name their speaker, so there is no interval by speaker"
    return [f"{reason}: {', '.join(unknown)}."] if unknown else []
