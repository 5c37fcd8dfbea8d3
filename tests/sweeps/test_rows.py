"""Rows of a sweep's table: labels, controls, and what was measured or is missing."""

from __future__ import annotations

import pytest
from sweep_results import COST, write_results
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.evaluation.chosen_sets import sets_of
from arkasr.evaluation.texts_io import read_utterances
from arkasr.sweeps.experiments import Repetition
from arkasr.sweeps.rows import check_controls, collect, control_of, rows_of
from arkasr.sweeps.statistics import rate
from arkasr.sweeps.sweep_file import read_sweep

STUDY = "conf: CONF\nruns: [teacher, base, base_opd]\ncontrols: [base]"
TWO_RUNS = "conf: CONF\nshared: [teacher, base]\nruns: [base_td, base_td_opd]\ngrid: {distill.top_k: [2, 4]}"


def sweep_of(conf, tmp_path, text):
    return read_sweep(write_sweep(tmp_path, conf, text))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (STUDY, ["teacher", "base", "base_opd"]),
        (TWO_RUNS, ["teacher", "base"] + [f"top_k-{k}/{run}" for k in (2, 4) for run in ("base_td", "base_td_opd")]),
        ("conf: CONF\nshared: [base]\nruns: [base_td]\npoints: {a: {}}", ["base", "a"]),
    ],
)
def test_labels_are_as_short_as_they_can_be(conf, tmp_path, text, labels):
    assert [row.label for row in rows_of(sweep_of(conf, tmp_path, text))] == labels


def test_control_is_a_row_or_the_run_of_the_same_point(conf, tmp_path):
    rows = rows_of(sweep_of(conf, tmp_path, TWO_RUNS))
    own = {row.label: row for row in rows}
    last = own["top_k-4/base_td_opd"]
    assert control_of(last, "base", rows) is own["base"]
    assert control_of(last, "base_td", rows) is own["top_k-4/base_td"]
    assert control_of(last, "top_k-2/base_td_opd", rows) is own["top_k-2/base_td_opd"]
    assert control_of(own["base"], "base", rows) is None and control_of(own["base"], "base_td", rows) is None


def test_unknown_control_is_refused(conf, tmp_path):
    check_controls(sweep_of(conf, tmp_path, STUDY))
    with pytest.raises(UserError, match=r"controls: bse is no row of the table; known are teacher, base, base_opd"):
        check_controls(sweep_of(conf, tmp_path, STUDY.replace("controls: [base]", "controls: [bse]")))


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


def test_parent_is_the_run_that_a_run_starts_from(conf, tmp_path):
    rows = {row.label: row for row in rows_of(sweep_of(conf, tmp_path, TWO_RUNS))}
    assert rows["top_k-4/base_td_opd"].parent() == rows["top_k-4/base_td"]
    assert rows["top_k-4/base_td"].parent() == rows["base"] and rows["base"].parent() is None
