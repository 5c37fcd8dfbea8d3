"""Tables of results in Markdown. Numbers of the paper are in columns of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.markdown import format_interval, format_number, markdown_table

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
            found += [(f"{title}, {name}", clause) for clause in entry.get("warnings", ())]
    return found


def marker(content: dict[str, Any], test_set: str) -> str:
    """Return what marks a doubtful error rate.

    Args:
        content: Content of scores.json of one run.
        test_set: Name of the test set.

    Returns:
        " (!)" if there are warnings about the run or about this test set, else an empty text.
    """
    doubtful = content.get("warnings") or content["sets"][test_set].get("warnings")
    return " (!)" if doubtful else ""


def row_title(run: str, content: dict[str, Any]) -> str:
    """Return the title of the run's row. The teacher's names the teacher.

    Args:
        run: Name of the run.
        content: Content of scores.json of the run.

    Returns:
        The title, such as "Base" or "Teacher (`qwen3_asr`, Qwen/Qwen3-ASR-1.7B)".
    """
    title, teacher = paper_numbers.title(run), content.get("teacher")
    if run != "teacher":
        return title
    if not teacher:
        return f"{title} (not recorded)"
    name = "/".join(Path(teacher["path"]).parts[-2:]) or teacher["options"].get("url")
    return f"{title} (`{teacher['name']}`{f', {name}' if name else ''})"


def error_rates(corpus: dict, scores: Scores) -> str:
    """Format Table 1 in Markdown: one row per run, one column per test set, then the paper's columns.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        Error rates in percent with 95 % intervals. "(!)" marks doubtful ones. If the corpus is in the paper, the
        paper's other models are added at the end.
    """
    metric, columns = corpus["metric"].upper(), paper_numbers.columns(corpus)
    header = ["Model", *(f"{name} {metric} [95 %]" for name in corpus["test_sets"])]
    header += (["paper: model"] if columns else []) + [f"paper: {column}" for column in columns.values()]
    rows = []
    for run, content in scores.items():
        cells = [_rate_cell(content, name) for name in corpus["test_sets"]]
        rows.append([row_title(run, content), *cells, *_paper_cells(run, columns)])
    others = [run for run in paper_numbers.TABLE1 if run not in scores and run not in paper_numbers.TITLES]
    dashes = ["-"] * len(corpus["test_sets"])
    rows += [["(paper only)", *dashes, *_paper_cells(run, columns)] for run in others if columns]
    return markdown_table(header, rows)


def _rate_cell(content: dict[str, Any], test_set: str) -> str:
    entry = content["sets"][test_set]
    rate = format_number(entry["rate_percent"]) + format_interval(entry["interval_percent"])
    return rate + marker(content, test_set)


def _paper_cells(run: str, columns: dict[str, str]) -> list[str]:
    rates = [format_number(paper_numbers.rate(run, column)) for column in columns.values()]
    return [paper_numbers.TABLE1[run][0] if run in paper_numbers.TABLE1 else "-", *rates] if columns else []


def vuss(metrics: dict[str, list[dict]], top_k: dict[str, Any], paper: bool = True) -> str:
    """Format Table 2 in Markdown: mean, minimum and maximum of the mean VUSS per logged step.

    A step without counted positions has no VUSS (it is logged as 0) and is left out.

    Args:
        metrics: Training rows by run.
        top_k: k of the distilled runs, by run.
        paper: Add the paper's values.

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
        rows.append([f"{when} ({paper_numbers.title(run)})", *cells, *(paper_cells if paper else ())])
    header = ["Condition", "Mean", "Min", "Max", "Logged steps", "k"]
    return markdown_table([*header, *(f"paper: {name}" for name in ("Mean", "Min", "Max", "k") if paper)], rows)


def counts(corpus: dict, scores: Scores) -> str:
    """Format the error counts of each run and test set in Markdown, in the style of sclite.

    Args:
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.

    Returns:
        Number of utterances and of reference words (or characters), percentages of these words, and percentage of
        utterances with an error. What was not measured is a dash.
    """
    unit = "Wrd" if corpus["metric"] == "wer" else "Chr"
    header = ["Model", "Set", "Snt", unit, "Corr", "Sub", "Del", "Ins", "Err", "S.Err"]
    rows = []
    for name in corpus["test_sets"]:
        for run, content in scores.items():
            entry = content["sets"][name]
            length, wrong = entry["reference_length"], entry["utterances_with_errors"]
            shares = [format_number(100 * entry[key] / length if length else None, 1) for key in COUNT_COLUMNS]
            shares.append(format_number(None if wrong is None else 100 * wrong / entry["utterances"], 1))
            sizes = [str(entry["utterances"]), "-" if length is None else str(length)]
            rows.append([paper_numbers.title(run), name, *sizes, *shares])
    return markdown_table(header, rows)


def has_agreement(scores: Scores) -> bool:
    """Return whether the agreement with transcripts in float32 was measured.

    Args:
        scores: Content of scores.json by run.

    Returns:
        True if it was, for any run and test set.
    """
    return any(entry.get("agreement") for content in scores.values() for entry in content["sets"].values())


def transcripts(corpus: dict, scores: Scores) -> str:
    """Format in Markdown what the transcripts of each run and test set are like.

    Args:
        corpus: Content of corpus.json.
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
    for name in corpus["test_sets"]:
        for run, content in scores.items():
            entry = content["sets"][name]
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
