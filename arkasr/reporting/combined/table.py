"""`arkasr table`: the published tables with the scores of several experiments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from arkasr.evaluation.published_tables import TABLES
from arkasr.reporting.combined import published
from arkasr.reporting.combined.columns import by_column
from arkasr.reporting.combined.experiments import read_experiments
from arkasr.reporting.combined.formats import FORMATS
from arkasr.reporting.combined.lines import Table
from arkasr.reporting.combined.notes import line_notes, unscored_notes
from arkasr.scoring.profiles import find_profile
from arkasr.utils.console import printable

NAMES = ("table1", "table2", "english", "chinese", "other")


def table(expdirs: Sequence[str], layout: str = "markdown", names: Sequence[str] = NAMES, profile: str = "") -> None:
    """Print the tables. The output depends on the experiments only.

    Args:
        expdirs: Experiment directories, each as `EXPDIR` or `NAME=EXPDIR`. Rows of experiments without a name are
            joined by the name of the run.
        layout: Key of `FORMATS`.
        names: Which tables, some of `NAMES`. The table of other test sets is left out if it is empty.
        profile: Scoring profile. Empty: that of each published table, and the default one of other test sets.

    Raises:
        UserError: An experiment has no scores or damaged ones, two have scores of the same model and test set, or the
            scores of a column are of different profiles or test sets.
    """
    if profile:
        find_profile(profile)
    with redirect_stdout(sys.stderr):  # what is logged is no part of the tables
        found = build(expdirs, names, profile)
    print(printable(FORMATS[layout](found)), end="")


def build(expdirs: Sequence[str], names: Sequence[str], profile: str) -> list[Table]:
    """Build the tables, see `table`.

    Args:
        expdirs: See `table`.
        names: See `table`.
        profile: See `table`.

    Returns:
        The tables in the order of `NAMES`, with their notes.
    """
    experiments = read_experiments(expdirs)
    columns, found = by_column(experiments), []
    for name in (name for name in NAMES if name in names):
        if name == "table2":
            found.append(published.vuss(experiments))
        elif name in TABLES:
            found.append(published.published(TABLES[name], columns, profile))
        elif (rest := published.others(columns, profile)).lines:
            found.append(rest)
    for each in found:
        each.notes += line_notes(each.lines)
    if found:
        found[-1].notes += unscored_notes(experiments)
    return found
