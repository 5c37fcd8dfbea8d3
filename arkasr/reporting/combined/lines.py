"""The lines of the tables of `arkasr table`: one per test set and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.published_tables import PublishedTable
from arkasr.reporting.combined.columns import Row, Score, describe_profile, require_one_profile

NOT_RUN, NOT_SCORED, NO_RATE = "not run", "not scored", "no rate"


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        column: Test set, or statistic of Table 2.
        metric: `WER`, `CER`, `MER` or `VUSS`.
        model: Title of the row.
        value: Our number, or None.
        interval: Its 95 % interval, or None.
        published_model: Name of the published row, empty if there is none.
        published: The published number, or None.
        difference: Ours minus the published number, or None.
        profile: Scoring profile with its version.
        experiment: Experiment directory.
        status: Empty, or why there is no number: `not run`, `not scored` (with this profile) or `no rate`.
        warnings: What makes the number doubtful.
    """

    column: str
    metric: str
    model: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    published_model: str = ""
    published: float | None = None
    difference: float | None = None
    profile: str = ""
    experiment: str = ""
    status: str = ""
    warnings: tuple[str, ...] = ()


@dataclass
class Table:
    """A table of lines.

    Attributes:
        title: Heading.
        source: `paper` or `card`, empty without published numbers.
        lines: The lines, test set after test set.
        notes: Sentences below the table.
    """

    title: str
    source: str
    lines: list[Line]
    notes: list[str] = field(default_factory=list)


def group(
    line: Line,
    rows: Mapping[Row, Score],
    scores: Mapping[Row, Score],
    profile: str,
    table: PublishedTable | None = None,
) -> list[tuple[str, Line]]:
    """Build the lines of one column.

    Args:
        line: Column and metric. The metric is replaced by that of the profile.
        rows: The rows of the table, with any of their scores.
        scores: The scores of this column.
        profile: Scoring profile.
        table: The published table, if there is one.

    Returns:
        Pairs of the published row, empty if there is none, and the line. Published rows come first, in their order. The
        others are left out if there are no scores.

    Raises:
        UserError: See `require_one_profile`.
    """
    found = [known for score in scores.values() if (known := score.by_profile(profile)) is not None]
    require_one_profile(line.column, profile, list(scores.values()))
    line = replace(line, metric=str(found[0]["metric"]).upper()) if found else line
    pairs = []
    for key, row in _order(rows, table, bool(scores)):
        title = row.title if row else paper_numbers.TITLES.get(key) or (table.model(key) if table else key)
        own = replace(line, model=title, published_model=table.model(key) if table else "")
        pairs.append((key, _with_score(own, scores.get(row) if row else None, profile)))
    return pairs


def _order(rows: Mapping[Row, Score], table: PublishedTable | None, rest: bool) -> list[tuple[str, Row | None]]:
    """Return pairs of the published row and ours: all published ones, with or without ours, then the rest if wanted."""
    if table is None:
        return [("", row) for row in rows]
    keys = {row: paper_numbers.row(score.run, score.content) for row, score in rows.items()}
    order: list[tuple[str, Row | None]] = []
    for key in table.rows:
        order += [(key, row) for row in rows if keys[row] == key] or [(key, None)]
    return order + [("", row) for row in rows if rest and keys[row] not in table.rows]


def _with_score(line: Line, score: Score | None, profile: str) -> Line:
    if score is None:
        return replace(line, status=NOT_RUN)
    line = replace(line, experiment=score.experiment.folder, warnings=tuple(score.warnings))
    found = score.by_profile(profile)
    if found is None:
        return replace(line, status=NOT_SCORED, profile=profile)
    rate, pair = found.get("rate_percent"), found.get("interval_percent")
    line = replace(line, profile=describe_profile(profile, found))
    if rate is None:
        return replace(line, status=NO_RATE)
    return replace(line, value=rate, interval=(pair[0], pair[1]) if pair and len(pair) == 2 else None)
