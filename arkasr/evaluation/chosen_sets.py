"""The test sets that a command works on: those of the data directory, or those that --test_sets names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet, read_corpus_facts, test_set


def chosen_sets(expdir: str, datadir: str, values: Sequence[str]) -> list[TestSet]:
    """Return the test sets to decode or to score.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        values: Values of --test_sets.

    Returns:
        The test sets of the data directory if there are no values, or else only those that the values name.

    Raises:
        UserError: There is no test set, or a value names none.
    """
    return sets_of(datadir)


def sets_of(datadir: str | Path) -> list[TestSet]:
    """Return the test sets of a data directory.

    Args:
        datadir: Data directory.

    Returns:
        The test sets.

    Raises:
        UserError: It has none, or its corpus.json is damaged.
    """
    corpus = read_corpus_facts(datadir)
    if not corpus["test_sets"]:
        raise UserError(
            f"{datadir}: has no test set; add one to `test` in corpus.yaml and run the recipe from --stage 1, or name "
            "others with --test_sets NAME=PATH"
        )
    return [test_set(corpus, name, datadir) for name in corpus["test_sets"]]
