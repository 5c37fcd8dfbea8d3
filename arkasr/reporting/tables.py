"""Tables of results in Markdown. Numbers of the paper are in columns of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.shown_sets import labels

Scores = dict[str, dict[str, Any]]
COUNT_COLUMNS = ("hits", "substitutions", "deletions", "insertions", "errors")


def warnings(scores: Scores) -> list[tuple[str, str]]:
    """List what makes error rates doubtful.

    Args:
        scores: Content of scores.json by run.

    Returns:
        Pairs of the run's title, with the test set if only that is concerned, and a clause.
    """
    found = []
    for run, content in scores.items():
        title = paper_numbers.title(run)
        found += [(title, clause) for clause in content.get("warnings", ())]
        for name, entry in content["sets"].items():
            found += [(f"{title}, {name}", clause) for clause in doubts(entry)]
    return found


def doubts(entry: Mapping[str, Any]) -> list[str]:
    """Return what makes the error rate of one run on one test set doubtful.

    Args:
        entry: Entry of the test set in scores.json.

    Returns:
        Clauses: what was found when it was scored, and what has changed since.
    """
    return [*(entry.get("warnings") or ()), *(entry.get("outdated") or ())]


def marker(content: dict[str, Any], test_set: str) -> str:
    """Return what marks a doubtful error rate.

    Args:
        content: Content of scores.json of one run.
        test_set: Name of the test set.

    Returns:
        " (!)" if there are warnings about the run or about this test set, else an empty text.
    """
    doubtful = content.get("warnings") or doubts(content["sets"].get(test_set) or {})
    return " (!)" if doubtful else ""


def row_title(run: str, content: dict[str, Any]) -> str:
    """Return the title of the run's row. The title of the teacher, and of a teacher plugin, names it.

    Args:
        run: Name of the run.
        content: Content of scores.json of the run.

    Returns:
        The title, such as "Base" or "Teacher (`qwen3_asr`, Qwen/Qwen3-ASR-1.7B)".
    """
    title, teacher = paper_numbers.title(run), content.get("teacher")
    if run != "teacher" and not (content.get("checkpoint") or {}).get("plugin"):
        return title
    if not teacher:  # a run that was decoded before any distilled run named it as its teacher has weights
        return title if content.get("weights") else f"{title} (not recorded)"
    name = "/".join(Path(teacher["path"]).parts[-2:]) or teacher["options"].get("url")
    return f"{title} (`{teacher['name']}`{f', {name}' if name else ''})"


def error_rates(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format Table 1 in Markdown: one row per run, one column per test set, then the paper's columns.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Error rates in percent with 95 % intervals. "(!)" marks doubtful ones, and a dash a test set on which the run
        was not scored. If test sets are in the paper, the paper's other models are added at the end.
    """
    columns = paper_numbers.columns(sets)
    header = ["Model", *(f"{each.name} {each.metric.upper()} [95 %]" for each in sets)]
    header += (["paper: model"] if columns else []) + [f"paper: {column}" for column in columns.values()]
    rows, papers = [], {run: paper_numbers.row(run, content) for run, content in scores.items()}
    for run, content in scores.items():
        cells = [_rate_cell(content, each.name) for each in sets]
        rows.append([row_title(run, content), *cells, *_paper_cells(papers[run], columns)])
    others = [run for run in paper_numbers.TABLE1 if run not in papers.values() and run not in paper_numbers.TITLES]
    rows += [["(paper only)", *["-"] * len(sets), *_paper_cells(run, columns)] for run in others if columns]
    return markdown_table(header, rows)


def _rate_cell(content: dict[str, Any], test_set: str) -> str:
    entry = content["sets"].get(test_set)
    if entry is None:
        return "-"
    rate = format_number(entry["rate_percent"]) + format_interval(entry["interval_percent"])
    return rate + marker(content, test_set)


def _paper_cells(row: str, columns: dict[str, str]) -> list[str]:
    rates = [format_number(paper_numbers.rate(row, column)) for column in columns.values()]
    return [paper_numbers.TABLE1[row][0] if row else "-", *rates] if columns else []


def counts(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format the error counts of each run and test set in Markdown, in the style of sclite.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Number of utterances and of reference words (or characters), percentages of these words, and percentage of
        utterances with an error. What was not measured is a dash.
    """
    header = ["Model", "Set", "Snt", units(sets), "Corr", "Sub", "Del", "Ins", "Err", "S.Err"]
    rows = []
    for name, label in labels(sets).items():
        for run, content in scores.items():
            if (entry := content["sets"].get(name)) is None:
                continue
            length, wrong = entry["reference_length"], entry["utterances_with_errors"]
            shares = [format_number(100 * entry[key] / length if length else None, 1) for key in COUNT_COLUMNS]
            shares.append(format_number(None if wrong is None else 100 * wrong / entry["utterances"], 1))
            sizes = [str(entry["utterances"]), "-" if length is None else str(length)]
            rows.append([paper_numbers.title(run), label, *sizes, *shares])
    return markdown_table(header, rows)


def units(sets: Iterable[TestSet]) -> str:
    """Return the heading of numbers of reference words or characters.

    Args:
        sets: The test sets.

    Returns:
        "Wrd", "Chr", "Tok" (words and characters), or several of them, such as "Wrd/Chr".
    """
    metrics = {each.metric for each in sets}
    return "/".join(unit for metric, unit in (("wer", "Wrd"), ("cer", "Chr"), ("mer", "Tok")) if metric in metrics)


def has_agreement(scores: Scores) -> bool:
    """Return whether the agreement with transcripts in float32 was measured.

    Args:
        scores: Content of scores.json by run.

    Returns:
        True if it was, for any run and test set.
    """
    return any(entry.get("agreement") for content in scores.values() for entry in content["sets"].values())


def transcripts(sets: Sequence[TestSet], scores: Scores) -> str:
    """Format in Markdown what the transcripts of each run and test set are like.

    Args:
        sets: The test sets.
        scores: Content of scores.json by run.

    Returns:
        Counts of clips that were not decoded, and of empty, cut, looping, distinct and most frequent transcripts, with
        their shares of all transcripts. If a run was decoded in bfloat16, also the number of transcripts in a sample
        that are equal in float32. A dash: not reported.
    """
    measured = has_agreement(scores)
    header = ["Model", "Set", "Clips", "Not decoded", "Empty", "Cut off", "Looping", "Distinct", "Most frequent"]
    header += ["Equal in float32"] if measured else []
    rows = []
    for name in (each.name for each in sets):
        for run, content in scores.items():
            if (entry := content["sets"].get(name)) is None:
                continue
            frequent = (entry["most_frequent_hypothesis"] or {}).get("count")
            values = [entry["empty_hypotheses"], entry["not_stopped"], entry["looping"], entry["distinct_hypotheses"]]
            cells = [_share_cell(value, entry["transcripts"]) for value in (*values, frequent)]
            missing = _share_cell(entry["missing_hypotheses"], entry["utterances"])
            if measured:
                found = entry.get("agreement")
                cells.append(f"{found['equal']} of {found['clips']}" if found else "-")
            rows.append([row_title(run, content), name, str(entry["utterances"]), missing, *cells])
    return markdown_table(header, rows)


def _share_cell(number: int | None, total: int) -> str:
    if number is None or not total:
        return "-"
    return f"{number} ({100 * number / total:.1f} %)" if number else "0"
