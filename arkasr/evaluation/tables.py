"""Tables of results, in Markdown and for the terminal. Numbers of the paper are in columns of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arkasr.evaluation import paper_numbers

Scores = dict[str, dict[str, Any]]
COUNT_COLUMNS = ("hits", "substitutions", "deletions", "insertions", "errors")
HYPOTHESIS_COLUMNS = ("missing_hypotheses", "empty_hypotheses", "not_stopped", "looping")


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table. All columns except the first are right-aligned.

    Args:
        header: C column titles.
        rows: Rows of C cells.

    Returns:
        The table, without a final newline.
    """
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def format_number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """Format a number with a fixed number of decimals.

    Args:
        value: The number, or None.
        digits: Number of decimals.
        sign: "+" to show the sign of positive numbers.

    Returns:
        The text, "-" for None.
    """
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def format_interval(pair: Sequence[float] | None, sign: str = "") -> str:
    """Format a confidence interval to follow a number, such as " [9.38, 16.59]".

    Args:
        pair: (low, high), or None.
        sign: "+" to show the sign of positive numbers.

    Returns:
        The text with a leading space, empty for None.
    """
    return "" if pair is None else f" [{format_number(pair[0], sign=sign)}, {format_number(pair[1], sign=sign)}]"


def _paper_sets(corpus: dict) -> list[tuple[str, str]]:
    """Return (test set, column of the paper's Table 1) for the test sets that have one."""
    columns = corpus.get("paper") or {}
    return [(name, columns[name]) for name in corpus["test_sets"] if columns.get(name)]


def error_rates(corpus: dict, scores: Scores) -> str:
    """Format Table 1 in Markdown: one row per run, one column per test set, then the paper's columns.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        Error rates in percent with 95 % intervals. If the corpus is in the paper, the paper's other models are added at
        the end.
    """
    metric, pairs = corpus["metric"].upper(), _paper_sets(corpus)
    header = ["Model", *(f"{name} {metric} [95 %]" for name in corpus["test_sets"])]
    header += (["paper: model"] if pairs else []) + [f"paper: {column}" for _, column in pairs]
    paper_only = (
        [run for run in paper_numbers.TABLE1 if run not in scores and run not in paper_numbers.TITLES] if pairs else []
    )
    rows = []
    for run in [*scores, *paper_only]:
        sets = scores[run]["sets"] if run in scores else {}
        cells = [
            format_number(sets[name]["rate_percent"]) + format_interval(sets[name]["interval_percent"]) if sets else "-"
            for name in corpus["test_sets"]
        ]
        paper_cells = [paper_numbers.TABLE1[run][0] if run in paper_numbers.TABLE1 else "-"] if pairs else []
        paper_cells += [format_number(paper_numbers.rate(run, column)) for _, column in pairs]
        rows.append([paper_numbers.title(run) if run in scores else "(paper only)", *cells, *paper_cells])
    return markdown_table(header, rows)


def _paper_change(run: str, column: str) -> str:
    rate, base = paper_numbers.rate(run, column), paper_numbers.rate("base", column)
    return "-" if rate is None or base is None else f"{100 * (rate / base - 1):+.1f} %"


def _gap_recovery_cell(scores: Scores, run: str, test_set: str) -> str:
    rates = [scores[name]["sets"][test_set]["rate_percent"] for name in ("base", run, "teacher")]
    share = None if None in rates else gap_recovery(*rates)
    return "-" if share is None else f"{100 * share:.1f} %"


def changes(corpus: dict, scores: Scores) -> str:
    """Format the change of each run from Base in Markdown.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        Relative change, difference in points with its paired interval, and the paper's relative change. If the teacher
        is among the runs, the last columns hold the gap recovery per test set. Empty if Base is not among the
        runs or is the only run.
    """
    if "base" not in scores or len(scores) == 1:
        return ""
    pairs, rows, recovery_sets = _paper_sets(corpus), [], corpus["test_sets"] if "teacher" in scores else []
    for run in scores:
        if run == "base":
            continue
        cells = []
        for name in corpus["test_sets"]:
            change = scores[run]["sets"][name]["against_base"]
            relative = "-" if change["relative_percent"] is None else f"{change['relative_percent']:+.1f} %"
            points = format_number(change["difference_percent"], sign="+")
            points += format_interval(change["interval_percent"], sign="+")
            cells.append(f"{relative} ({points})")
        cells += [_paper_change(run, column) for _, column in pairs]
        rows.append([paper_numbers.title(run), *cells, *(_gap_recovery_cell(scores, run, n) for n in recovery_sets)])
    header = ["Model", *(f"{name} relative (points [95 %])" for name in corpus["test_sets"])]
    header += [f"paper: {column} relative" for _, column in pairs]
    return markdown_table([*header, *(f"{name} gap recovery" for name in recovery_sets)], rows)


def vuss(metrics: dict[str, list[dict]], top_k: dict[str, Any]) -> str:
    """Format Table 2 in Markdown: mean, minimum and maximum of the mean VUSS per logged step, and the paper's values.

    A step without counted positions has no VUSS (it is logged as 0) and is left out.

    Args:
        metrics: Training rows by run.
        top_k: k of the distilled runs, by run.

    Returns:
        The table, one row before TD and one after.
    """
    rows = []
    for run, when in (("base_opd", "Before TD"), ("base_td_opd", "After TD")):
        values = [row["vuss"] for row in metrics.get(run, ()) if row.get("vuss")]
        statistics = [sum(values) / len(values), min(values), max(values)] if values else [None] * 3
        cells = [*map(format_number, statistics), str(len(values) or "-")]
        cells.append(str(top_k.get(run) or "-") if values else "-")
        paper_cells = [*map(format_number, paper_numbers.TABLE2[run]), str(paper_numbers.TOP_K)]
        rows.append([f"{when} ({paper_numbers.title(run)})", *cells, *paper_cells])
    header = ["Condition", "Mean", "Min", "Max", "Logged steps", "k"]
    return markdown_table([*header, *(f"paper: {name}" for name in ("Mean", "Min", "Max", "k"))], rows)


def counts(corpus: dict, scores: Scores) -> str:
    """Format the error counts of each run and test set in Markdown, in the style of sclite.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        Number of utterances and of reference words (or characters), percentages of these words, and counts of missing,
        empty, cut-off and looping hypotheses.
    """
    unit = "Wrd" if corpus["metric"] == "wer" else "Chr"
    header = ["Model", "Set", "Snt", unit, "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "Missing", "Empty", "Cut off"]
    header += ["Looping"]
    rows = []
    for name in corpus["test_sets"]:
        for run in scores:
            summary = scores[run]["sets"][name]
            length = summary["reference_length"]
            shares = [format_number(100 * summary[key] / length if length else None, 1) for key in COUNT_COLUMNS]
            wrong = format_number(100 * summary["utterances_with_errors"] / summary["utterances"], 1)
            last = ["-" if summary[key] is None else str(summary[key]) for key in HYPOTHESIS_COLUMNS]
            sizes = [str(summary["utterances"]), str(length)]
            rows.append([paper_numbers.title(run), name, *sizes, *shares, wrong, *last])
    return markdown_table(header, rows)


def terminal(corpus: dict, scores: Scores) -> str:
    """Format Table 1 for a terminal of 80 columns, one line per test set and run.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        The table with a title line. "vs Base" is the relative change. "paper" is the paper's error rate in percent.
    """
    metric = corpus["metric"].upper()
    lines: list[tuple[str, ...]] = [("test set", "model", f"{metric} %", "95 % interval", "vs Base", f"paper {metric}")]
    columns = dict(_paper_sets(corpus))
    for name in corpus["test_sets"]:
        for index, run in enumerate(scores):
            summary = scores[run]["sets"][name]
            pair = summary["interval_percent"]
            change = summary.get("against_base", {}).get("relative_percent")
            interval = "-" if pair is None else f"{format_number(pair[0])} to {format_number(pair[1])}"
            cells = [format_number(summary["rate_percent"]), interval, "-" if change is None else f"{change:+.1f} %"]
            paper = format_number(paper_numbers.rate(run, columns.get(name)))
            lines.append((name if index == 0 else "", paper_numbers.title(run), *cells, paper))
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        names = [cell.ljust(width) for cell, width in zip(line[:2], widths)]
        texts.append("  ".join(names + [cell.rjust(width) for cell, width in zip(line[2:], widths[2:])]))
    note = "" if corpus.get("scale") == "paper" else " (miniature, not comparable to the paper)"
    return "\n".join([f"Table 1: {corpus['name']}{note}", "", *texts])
