"""What was measured of each row of a sweep, and why a repetition has no result."""

from __future__ import annotations

import pytest
from sweep_results import COST, write_results

from arkasr.evaluation.chosen_sets import sets_of
from arkasr.evaluation.texts_io import read_utterances
from arkasr.sweeps.repetitions import Repetition
from arkasr.sweeps.results import collect
from arkasr.sweeps.rows import rows_of
from arkasr.sweeps.statistics import rate


def test_results_are_read_and_missing_ones_are_named(conf, datadir, tmp_path):
    sweep = write_results(tmp_path, conf, datadir)
    sets = {each.name: (each, read_utterances(each.manifest)) for each in sets_of(datadir)}
    found = {row.label: collect(row, tmp_path / "exp", sets) for row in rows_of(sweep)}
    words = sum(len(each.text.split()) for each in sets["test-a"][1].values())
    rates = {seed.seed: rate(tally) for seed, tally in found["base"].tallies["test-a"].items()}
    assert rates == {1: pytest.approx(600 / words), 2: pytest.approx(500 / words)}
    assert found["base"].costs[Repetition(1)] == COST and not found["base"].missing
    assert found["top_k-4"].missing == {Repetition(2): "not run"} and len(found["top_k-4"].tallies["test-a"]) == 1


def test_damaged_hypotheses_are_a_reason(conf, datadir, tmp_path):
    sweep = write_results(
        tmp_path, conf, datadir, "conf: CONF\nshared: [teacher, base]\nruns: [base_opd]\nskip: [teacher]"
    )
    (tmp_path / "exp/seed-1/shared/base/decode/test-a.jsonl").unlink()
    sets = {each.name: (each, read_utterances(each.manifest)) for each in sets_of(datadir)}
    teacher, base, _ = (collect(row, tmp_path / "exp", sets) for row in rows_of(sweep))
    assert teacher.missing == {Repetition(1): "skipped"} and not teacher.tallies["test-a"]
    assert "no such file; decode it" in base.missing[Repetition(1)]
