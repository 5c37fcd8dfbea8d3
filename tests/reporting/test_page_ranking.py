"""Which utterances are shown: compared with a search through all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.page.decoded import DecodedSet
from arkasr.reporting.page.looks import looks
from arkasr.reporting.page.ranking import MOST_CHANGED, MOST_WRONG, groups
from arkasr.scoring.tally import Tally

TESTED = TestSet("test", Path("test.jsonl.gz"), "wer", ("unicode",))
LOOKS = looks({"base": "Base", "base_opd": "Base+OPD"})


def decoded(missing=(), **errors):
    zeros = np.zeros(len(next(iter(errors.values()))), dtype=np.int64)
    tallies = {run: Tally(zeros + 9, np.array(values), zeros, zeros) for run, values in errors.items()}
    texts = {run: [None if i in missing else "x" for i in range(len(zeros))] for run in errors}
    return DecodedSet(TESTED, {}, ["x"] * len(zeros), texts, tallies, {})


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_largest_changes_and_most_errors(seed):
    before, after = np.random.default_rng(seed).integers(0, 12, size=(2, 40))
    better, worse, wrong = groups(decoded(base=before, base_opd=after), "base", ["base_opd"], LOOKS)
    change = after - before
    for group, sign in ((better, 1), (worse, -1)):
        assert len(group.chosen) == MOST_CHANGED
        assert sorted(sign * change[group.chosen]) == sorted(sign * change)[:MOST_CHANGED]
        assert list(sign * change[group.chosen]) == sorted(sign * change[group.chosen])
    assert sorted(after[wrong.chosen])[::-1] == sorted(after)[::-1][:MOST_WRONG]
    assert f"({(change < 0).sum()} of 40 utterances improved)" in better.title


def test_groups_without_change_and_without_errors_are_empty():
    found = groups(decoded(base=[0, 0], base_opd=[0, 0]), "base", ["base_opd"], LOOKS)
    assert [group.chosen for group in found] == [[], [], []]


def test_groups_leave_out_utterances_that_were_not_decoded():
    better, worse, wrong = groups(decoded({1}, base=[3, 9, 1], base_opd=[1, 0, 4]), "base", ["base_opd"], LOOKS)
    assert (better.chosen, worse.chosen, wrong.chosen) == ([0], [2], [2, 0])


def test_groups_of_one_run_are_those_with_most_errors():
    (only,) = groups(decoded(base=[1, 0, 3, 2, 5]), None, ["base"], LOOKS)
    assert only.chosen == [4, 2, 3] and only.title == "Most errors left with Base"
