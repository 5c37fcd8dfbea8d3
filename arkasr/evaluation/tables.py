"""The tables of results, in Markdown and for the terminal. Every number of the paper stands in a column of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arkasr.evaluation import paper_numbers

Scores = dict[str, dict[str, Any]]
COUNT_COLUMNS = ("hits", "substitutions", "deletions", "insertions", "errors")
ODD_COLUMNS = ("missing_hypotheses", "empty_hypotheses", "not_stopped", "looping")


def gap_recovery(before: float, after: float, teacher: float) -> float | None:
    """(after - before) / (teacher - before): the share of the gap to the teacher that was closed; None without a gap.

    "Gap recovery rate" of arXiv 2604.13016. Holds for accuracies and for error rates alike, as the signs cancel.
    """
    return None if teacher == before else (after - before) / (teacher - before)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column but the first is flush right."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float | None, digits: int = 2, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def interval(pair: Sequence[float] | None, sign: str = "") -> str:
    return "" if pair is None else f" [{number(pair[0], sign=sign)}, {number(pair[1], sign=sign)}]"


def _paper_sets(corpus: dict) -> list[tuple[str, str]]:
    """Return (test set, column of the paper's Table 1) for the test sets that have one."""
    columns = corpus.get("paper") or {}
    return [(name, columns[name]) for name in corpus["test_sets"] if columns.get(name)]


def error_rates(corpus: dict, scores: Scores) -> str:
    """Return Table 1: a row a run, a column a test set, then the paper's columns, in percent."""
    metric, pairs = corpus["metric"].upper(), _paper_sets(corpus)
    header = ["Model", *(f"{name} {metric} [95 %]" for name in corpus["test_sets"])]
    header += (["paper's model"] if pairs else []) + [f"paper: {column}" for _, column in pairs]
    others = (
        [run for run in paper_numbers.TABLE1 if run not in scores and run not in paper_numbers.TITLES] if pairs else []
    )
    rows = []
    for run in [*scores, *others]:
        sets = scores[run]["sets"] if run in scores else {}
        cells = [
            number(sets[name]["rate_percent"]) + interval(sets[name]["interval_percent"]) if sets else "-"
            for name in corpus["test_sets"]
        ]
        theirs = [paper_numbers.TABLE1[run][0] if run in paper_numbers.TABLE1 else "-"] if pairs else []
        theirs += [number(paper_numbers.rate(run, column)) for _, column in pairs]
        rows.append([paper_numbers.title(run) if run in scores else "(the paper's alone)", *cells, *theirs])
    return markdown(header, rows)


def _paper_change(run: str, column: str) -> str:
    ours, base = paper_numbers.rate(run, column), paper_numbers.rate("base", column)
    return "-" if ours is None or base is None else f"{100 * (ours / base - 1):+.1f} %"


def _recovered(scores: Scores, run: str, test_set: str) -> str:
    """Return how much of Base's gap to the teacher a run closed."""
    rates = [scores[name]["sets"][test_set]["rate_percent"] for name in ("base", run, "teacher")]
    share = None if None in rates else gap_recovery(*rates)
    return "-" if share is None else f"{100 * share:.1f} %"


def changes(corpus: dict, scores: Scores) -> str:
    """Return the changes from Base: relative, and in points with their paired interval; empty without Base.

    With a teacher the last columns give the gap recovery of each test set: the share of Base's distance to it.
    """
    if "base" not in scores or len(scores) == 1:
        return ""
    pairs, rows, closed = _paper_sets(corpus), [], corpus["test_sets"] if "teacher" in scores else []
    for run in scores:
        if run == "base":
            continue
        cells = []
        for name in corpus["test_sets"]:
            change = scores[run]["sets"][name]["against_base"]
            relative = "-" if change["relative_percent"] is None else f"{change['relative_percent']:+.1f} %"
            points = number(change["difference_percent"], sign="+") + interval(change["interval_percent"], sign="+")
            cells.append(f"{relative} ({points})")
        cells += [_paper_change(run, column) for _, column in pairs]
        rows.append([paper_numbers.title(run), *cells, *(_recovered(scores, run, name) for name in closed)])
    header = ["Model", *(f"{name} relative (points [95 %])" for name in corpus["test_sets"])]
    header += [f"paper: {column} relative" for _, column in pairs]
    return markdown([*header, *(f"{name} gap recovery" for name in closed)], rows)


def vuss(metrics: dict[str, list[dict]], top_k: dict[str, Any]) -> str:
    """Return Table 2: mean, min and max over the logged steps of each step's mean VUSS, ours and the paper's.

    A step in which no position was counted has no VUSS (it is logged as 0) and is left out.
    """
    rows = []
    for run, when in (("base_opd", "Before TD"), ("base_td_opd", "After TD")):
        values = [row["vuss"] for row in metrics.get(run, ()) if row.get("vuss")]
        ours = [sum(values) / len(values), min(values), max(values)] if values else [None] * 3
        cells = [*map(number, ours), str(len(values) or "-"), str(top_k.get(run) or "-") if values else "-"]
        rows.append(
            [
                f"{when} ({paper_numbers.title(run)})",
                *cells,
                *map(number, paper_numbers.TABLE2[run]),
                str(paper_numbers.TOP_K),
            ]
        )
    header = ["Condition", "Mean", "Min", "Max", "Logged steps", "k"]
    return markdown([*header, *(f"paper: {name}" for name in ("Mean", "Min", "Max", "k"))], rows)


def counts(corpus: dict, scores: Scores) -> str:
    """Return the counts: utterances, reference units, then percentages of those units, then oddities of hypotheses."""
    unit = "Wrd" if corpus["metric"] == "wer" else "Chr"
    header = ["Model", "Set", "Snt", unit, "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "Missing", "Empty", "Cut off"]
    header += ["Looping"]
    rows = []
    for name in corpus["test_sets"]:
        for run in scores:
            got = scores[run]["sets"][name]
            length = got["reference_length"]
            shares = [number(100 * got[key] / length if length else None, 1) for key in COUNT_COLUMNS]
            wrong = number(100 * got["utterances_with_errors"] / got["utterances"], 1)
            odd = ["-" if got[key] is None else str(got[key]) for key in ODD_COLUMNS]
            rows.append([paper_numbers.title(run), name, str(got["utterances"]), str(length), *shares, wrong, *odd])
    return markdown(header, rows)


def terminal(corpus: dict, scores: Scores) -> str:
    """Return Table 1 for a terminal, a line a run and test set; 80 columns hold it."""
    lines = [("test set", "model", corpus["metric"].upper() + " %", "95 % interval", "vs Base", "paper's")]
    columns = dict(_paper_sets(corpus))
    for name in corpus["test_sets"]:
        for index, run in enumerate(scores):
            got = scores[run]["sets"][name]
            pair = got["interval_percent"]
            change = got.get("against_base", {}).get("relative_percent")
            interval = "-" if pair is None else f"{number(pair[0])} to {number(pair[1])}"
            cells = [number(got["rate_percent"]), interval, "-" if change is None else f"{change:+.1f} %"]
            theirs = number(paper_numbers.rate(run, columns.get(name)))
            lines.append((name if index == 0 else "", paper_numbers.title(run), *cells, theirs))
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        names = [cell.ljust(width) for cell, width in zip(line[:2], widths)]
        texts.append("  ".join(names + [cell.rjust(width) for cell, width in zip(line[2:], widths[2:])]))
    note = "" if corpus.get("scale") == "paper" else "; miniature: not comparable to the paper's"
    return "\n".join([f"Table 1: {corpus['name']}{note}", "", *texts])
