"""Table 1 for a terminal of 80 columns, with the warnings about it."""

from __future__ import annotations

import textwrap

from arkasr.evaluation import inputs, paper_numbers, tables
from arkasr.evaluation.markdown import format_number
from arkasr.evaluation.tables import Scores

WIDTH = 80


def table(corpus: dict, scores: Scores) -> str:
    """Format Table 1, one line per test set and run.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        The table with a title line, then the teacher and the warnings. "vs Base" is the relative change. "paper" is the
        paper's error rate in percent, for the corpora of the paper.
    """
    metric, columns = corpus["metric"].upper(), paper_numbers.columns(corpus)
    lines: list[tuple[str, ...]] = [("test set", "model", f"{metric} %", "", "95 % interval", "vs Base")]
    lines[0] += (f"paper {metric}",) if columns else ()
    for name in corpus["test_sets"]:
        for index, run in enumerate(scores):
            cells = _cells(scores[run], name)
            paper = [format_number(paper_numbers.rate(run, columns.get(name)))] if columns else []
            lines.append((name if index == 0 else "", paper_numbers.title(run), *cells, *paper))
    note = "" if corpus.get("scale") == "paper" else _miniature(bool(columns))
    return "\n".join([f"Table 1: {corpus['name']}{note}", "", *_aligned(lines), *_notes(scores)])


def _miniature(paper: bool) -> str:
    return " (miniature, not comparable to the paper)" if paper else " (miniature)"


def _cells(content: dict, test_set: str) -> list[str]:
    entry = content["sets"][test_set]
    pair, change = entry["interval_percent"], (entry.get("against_base") or {}).get("relative_percent")
    interval = "-" if pair is None else f"{format_number(pair[0])} to {format_number(pair[1])}"
    mark = "!" if tables.marker(content, test_set) else ""
    return [format_number(entry["rate_percent"]), mark, interval, "-" if change is None else f"{change:+.1f} %"]


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        names = [cell.ljust(width) for cell, width in zip(line[:2], widths)]
        cells = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:]) if width]
        texts.append("  ".join(names + cells).rstrip())
    return texts


def _notes(scores: Scores) -> list[str]:
    teacher = scores.get("teacher", {}).get("teacher")
    notes = [f"Teacher: {inputs.describe_teacher(teacher)}"] if teacher else []
    notes += [f"! {where}: {clause}." for where, clause in tables.warnings(scores)]
    wrapped = [textwrap.fill(note, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for note in notes]
    return ["", *wrapped] if wrapped else []
