"""The published tables with our scores: the paper's Tables 1 and 2, the model card's tables, and other test sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from arkasr.errors import UserError
from arkasr.evaluation import paper_numbers
from arkasr.evaluation.published_tables import AVERAGE, PAPER, TABLES, PublishedTable
from arkasr.reporting import vuss_table
from arkasr.reporting.combined.columns import Columns, Score, in_order
from arkasr.reporting.combined.experiments import Experiment
from arkasr.reporting.combined.lines import NOT_RUN, Line, Table, group
from arkasr.reporting.combined.notes import notes_of, other_data, other_data_notes

CHARACTERS = TABLES["chinese"].columns  # test sets with character error rate


def published(table: PublishedTable, columns: Columns, profile: str = "") -> Table:
    """Build one of the published tables with our scores.

    Args:
        table: The published table.
        columns: Our scores by column and row.
        profile: Scoring profile of our scores. Empty: that of the table.

    Returns:
        One line per column and model. Published rows and columns that we have not run are there as "not run". The
        difference is left out where the numbers are not comparable, which a note says.

    Raises:
        UserError: The scores of one column are of different versions of the profile.
    """
    used = profile or table.profile
    same = used == table.profile
    ours = {column: columns.get(column, {}) for column in table.columns}
    rows = in_order(ours)
    lines: list[Line] = []
    for column, shown in table.columns.items():
        empty = Line(shown, "CER" if column in CHARACTERS else "WER")
        found = group(empty, rows, ours[column], used, table)
        comparable = same and not other_data(column, ours[column], table)
        lines += [_beside(line, table.rate(row, column), comparable) for row, line in found]
    if table.has_average:
        lines += _averages(table, lines, same and not any(other_data(*each, table) for each in ours.items()))
    notes = [] if same else [_other_profile(table, used)]
    return Table(table.title, table.source, lines, notes + other_data_notes(ours, table) + notes_of(ours))


def others(columns: Columns, profile: str = "") -> Table:
    """Build the table of test sets that are in no published table.

    Args:
        columns: Our scores by column and row.
        profile: Scoring profile. Empty: the default one of each test set.

    Returns:
        One line per test set and model that was scored on it. Without lines if there are none.

    Raises:
        UserError: The scores of one column are of different profiles.
    """
    known = {column for table in TABLES.values() for column in table.columns}
    rest = {column: scores for column, scores in columns.items() if column not in known}
    lines: list[Line] = []
    for column, scores in rest.items():
        used = profile or _default_profile(list(scores.values()))
        lines += [line for _, line in group(Line(column, ""), in_order({column: scores}), scores, used)]
    return Table("Other test sets", "", lines, notes_of(rest))


def vuss(experiments: Sequence[Experiment]) -> Table:
    """Build Table 2: mean, minimum and maximum VUSS over the logged steps.

    Args:
        experiments: The experiments.

    Returns:
        One line per statistic, condition and experiment. The difference is left out if k is not that of the paper.
    """
    lines = []
    for index, name in enumerate(vuss_table.OVERALL):
        for run in vuss_table.CONDITIONS:
            title, number = vuss_table.condition(run), paper_numbers.TABLE2[run][index]
            base = Line(name, "VUSS", title, published_model=f"k = {paper_numbers.TOP_K}", published=number)
            found = [line for each in experiments if (line := _vuss_line(base, run, each)) is not None]
            lines += found or [replace(base, status=NOT_RUN)]
    notes = ["Valid union support size over the logged steps. With another k than the paper's, there is no difference."]
    return Table("Table 2: VUSS during distillation", PAPER, lines, notes)


def _vuss_line(base: Line, run: str, experiment: Experiment) -> Line | None:
    numbers = vuss_table.summary(experiment.vuss.get(run, ()))
    if not numbers:
        return None
    k, value = experiment.top_k.get(run, "-"), numbers[base.column]
    same = k == str(paper_numbers.TOP_K) and base.published is not None
    model = f"{experiment.name or experiment.folder}: {base.model}, k = {k}"
    difference = value - base.published if same and base.published is not None else None
    return replace(base, model=model, value=value, difference=difference, experiment=experiment.folder)


def _beside(line: Line, number: float | None, comparable: bool) -> Line:
    """Add the published number, and the difference if the profiles are the same."""
    known = comparable and line.value is not None and number is not None
    return replace(line, published=number, difference=line.value - number if known else None)  # type: ignore[operator]


def _averages(table: PublishedTable, lines: Sequence[Line], comparable: bool) -> list[Line]:
    """Return the mean of all columns by model. Models without published row need a score on all of them."""
    found = []
    for model in dict.fromkeys(line.model for line in lines):
        own = [line for line in lines if line.model == model]
        values = [line.value for line in own if line.value is not None]
        complete = len(values) == len(table.columns)
        if not (complete or own[0].published_model):
            continue
        line = Line(AVERAGE, own[0].metric, model, published_model=own[0].published_model)
        line = replace(line, value=fmean(values) if complete else None, status="" if complete else NOT_RUN)
        row = next((key for key, (name, _) in table.rows.items() if name == line.published_model), "")
        found.append(_beside(line, table.rate(row, AVERAGE), comparable))
    return found


def _default_profile(scores: Sequence[Score]) -> str:
    names = {score.default_profile: score for score in scores}
    if len(names) > 1:
        (one, first), (two, second) = sorted(names.items())[:2]
        raise UserError(
            f"{second.where}: scored with profile {two}, but {first.where} with {one}; scores of different profiles "
            "are not comparable; choose one that both have with --profile, or run --stage 5 again"
        )
    return next(iter(names))


def _other_profile(table: PublishedTable, used: str) -> str:
    return (
        f"Scored with profile {used}. The numbers of the {table.source} are of profile {table.profile}, so there is no "
        "difference."
    )
