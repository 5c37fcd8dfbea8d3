"""The tables of `arkasr table` as Markdown, LaTeX (with the package booktabs) and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from itertools import groupby

from arkasr.reporting.combined.lines import Line, Table
from arkasr.reporting.markdown import format_interval, format_number, markdown_table

CSV_HEADER = (
    "table", "test_set", "metric", "model", "value", "low", "high", "published_model", "published", "difference",
    "profile", "experiment", "status", "warnings",
)  # fmt: skip
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}


def header(table: Table) -> list[str]:
    """Return the titles of the columns.

    Args:
        table: The table.

    Returns:
        Titles. Tables with published numbers have three more columns.
    """
    rate = "VUSS" if any(line.metric == "VUSS" for line in table.lines) else "Error rate, % [95 %]"
    names = ["Statistic" if rate == "VUSS" else "Test set", "Model", rate]
    return names + ([f"{table.source}: model", table.source, "Difference"] if table.source else [])


def cells(table: Table, line: Line) -> list[str]:
    """Return the cells of one line.

    Args:
        table: The table.
        line: One of its lines.

    Returns:
        Texts, one per column of `header`.
    """
    metric = "" if line.metric in ("", "VUSS") else f" ({line.metric})"
    rate = line.status or format_number(line.value) + format_interval(line.interval)
    own = [f"{line.column}{metric}", line.model, rate + (" (!)" if line.warnings else "")]
    if not table.source:
        return own
    return [*own, line.published_model or "-", format_number(line.published), format_number(line.difference, sign="+")]


def markdown(tables: Sequence[Table]) -> str:
    """Format tables in Markdown.

    Args:
        tables: The tables.

    Returns:
        Sections with a heading, a table, and a list of notes.
    """
    parts = []
    for table in tables:
        parts.append(f"## {table.title}")
        if table.lines:
            parts.append(markdown_table(header(table), _grouped([cells(table, line) for line in table.lines])))
        if table.notes:
            parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts) + "\n"


def _grouped(rows: Sequence[list[str]]) -> list[list[str]]:
    """Leave out the first cell of rows that repeat it."""
    before = ["", *(row[0] for row in rows)]
    return [["" if first == last else first, *rest] for last, (first, *rest) in zip(before, rows)]


def latex(tables: Sequence[Table]) -> str:
    """Format tables in LaTeX.

    Args:
        tables: The tables.

    Returns:
        One `table` environment each, with the notes in small print below. They need the package booktabs.
    """
    return "\n".join(_latex_table(table) for table in tables)


def _latex_table(table: Table) -> str:
    titles = header(table)
    lines = ["\\begin{table}", "\\centering", f"\\caption{{{escape(table.title)}}}"]
    if table.lines:
        rows = [cells(table, line) for line in table.lines]
        lines += [f"\\begin{{tabular}}{{{'llr' + 'lrr' * bool(table.source)}}}", "\\toprule", _latex_row(titles)]
        for _, same in groupby(rows, lambda row: row[0]):
            lines += ["\\midrule", *map(_latex_row, _grouped(list(same)))]
        lines += ["\\bottomrule", "\\end{tabular}"]
    lines += ["\\par\\medskip\\footnotesize\\raggedright"] * bool(table.notes)
    lines += [f"{escape(note)}\\par" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(escape, row)) + " \\\\"


def escape(text: str) -> str:
    """Escape a text for LaTeX.

    Args:
        text: Any text.

    Returns:
        The text with the ten special characters escaped, and a minus sign before numbers.
    """
    escaped = "".join(_LATEX.get(char, char) for char in text)
    return f"$-${escaped[1:]}" if escaped.startswith("-") and escaped != "-" else escaped


def comma_separated(tables: Sequence[Table]) -> str:
    """Format all tables as one CSV, one row per test set and model.

    Args:
        tables: The tables.

    Returns:
        CSV with the header `CSV_HEADER`. Numbers that are not there are empty.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for table in tables:
        for line in table.lines:
            low, high = line.interval or (None, None)
            numbers = [_number(value) for value in (line.value, low, high)]
            beside = [line.published_model, _number(line.published), _number(line.difference)]
            origin = [line.profile, line.experiment, line.status, "; ".join(line.warnings)]
            writer.writerow([table.title, line.column, line.metric, line.model, *numbers, *beside, *origin])
    return stream.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
