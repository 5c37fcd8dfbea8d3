"""The sentences below the tables of `arkasr table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arkasr.evaluation.published_tables import PublishedTable
from arkasr.reporting.combined.columns import Columns, Row, Score
from arkasr.reporting.combined.experiments import Experiment
from arkasr.reporting.combined.lines import NOT_SCORED, Line


def notes_of(columns: Columns) -> list[str]:
    """Say where the scores of a table are from.

    Args:
        columns: Scores by column and row.

    Returns:
        Sentences: the experiment of each column, and rows of several models.
    """
    notes = [f"From {folder}: {', '.join(names)}." for folder, names in _columns_of(columns).items()]
    for row in dict.fromkeys(row for scores in columns.values() for row in scores):
        own = [scores[row] for scores in columns.values() if row in scores]
        weights = {digest for score in own if (digest := _weights(score))}
        if len(weights) > 1:
            notes.append(f"{row.title}: the numbers are of {len(weights)} models with different weights.")
    return notes


def other_data(column: str, scores: Mapping[Row, Score], table: PublishedTable) -> str:
    """Say why the scores of a column are not comparable with the published numbers.

    Args:
        column: Column of the published tables.
        scores: Our scores on it, all of one test set.
        table: The published table.

    Returns:
        The reason. Empty if the scale is `paper`, and the number of clips is that of the published test set or unknown.
    """
    entries = [score.entry for score in scores.values()]
    if not entries:
        return ""
    scale, clips, published = entries[0].get("scale"), entries[0].get("utterances"), table.clips.get(column)
    if scale != "paper":
        return f"scale {scale or 'unknown'}"
    if published not in (None, clips):
        return f"{clips} clips, but the published numbers are of {published}"
    return ""


def other_data_notes(columns: Columns, table: PublishedTable) -> list[str]:
    """Say which columns have no difference from the published numbers.

    Args:
        columns: Scores by column and row.
        table: The published table.

    Returns:
        One sentence per reason (see `other_data`).
    """
    found: dict[str, list[str]] = {}
    for column, scores in columns.items():
        if reason := other_data(column, scores, table):
            found.setdefault(reason, []).append(column)
    return [f"No difference from published numbers, {why}: {', '.join(names)}." for why, names in found.items()]


def _columns_of(columns: Columns) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, scores in columns.items():
        for folder in dict.fromkeys(score.experiment.folder for score in scores.values()):
            found.setdefault(folder, []).append(name)
    return found


def _weights(score: Score) -> str:
    return score.entry.get("weights") or score.content.get("weights") or ""


def line_notes(lines: Sequence[Line]) -> list[str]:
    """Say what the lines cannot show: profiles, missing profiles, and what makes numbers doubtful.

    Args:
        lines: The lines of a table.

    Returns:
        Sentences.
    """
    used = list(dict.fromkeys(line.profile for line in lines if line.value is not None and line.profile))
    notes = [f"Scored with profile {', '.join(used)}."] if used else []
    notes += [
        f"{line.model} on {line.column}: not scored with profile {line.profile}. Add it to `profiles` in corpus.yaml "
        f"and run stages 1 and 5 of {line.experiment}."
        for line in lines
        if line.status == NOT_SCORED
    ]
    doubtful = dict.fromkeys((line.model, line.column, clause) for line in lines for clause in line.warnings)
    return notes + [f"(!) {model} on {column}: {clause}." for model, column, clause in doubtful]


def unscored_notes(experiments: Sequence[Experiment]) -> list[str]:
    """Name the runs that were decoded and not scored.

    Args:
        experiments: The experiments.

    Returns:
        One sentence per experiment that has such runs.
    """
    return [
        f"{each.folder}: {', '.join(each.unscored)} decoded, but not scored. Run the recipe from --stage 5."
        for each in experiments
        if each.unscored
    ]
