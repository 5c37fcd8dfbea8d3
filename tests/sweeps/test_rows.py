"""Rows of a sweep's table: labels, controls, and the runs that they start from."""

from __future__ import annotations

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.rows import check_controls, control_of, rows_of
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


def test_run_trained_once_is_a_row_with_one_training(conf, tmp_path):
    text = "conf: CONF\nonce: [base, teacher]\nshared: [base_td]\nruns: [base_opd, base_td_opd]\nseeds: [3, 4]"
    rows = {row.label: row for row in rows_of(sweep_of(conf, tmp_path, text))}
    assert list(rows) == ["base", "teacher", "base_td", "base_opd", "base_td_opd"]
    assert [len(row.experiments()) for row in rows.values()] == [1, 1, 2, 2, 2]
    ((repetition, experiment),) = rows["teacher"].experiments().items()
    assert (repetition.name, experiment.name) == ("once", "once")
    assert rows["base_opd"].parent() == rows["base_td"].parent() == rows["base"]
    assert rows["base_td_opd"].parent() == rows["base_td"] and rows["teacher"].parent() is None
    assert control_of(rows["base_opd"], "teacher", list(rows.values())) is rows["teacher"]


def test_unknown_control_is_refused(conf, tmp_path):
    check_controls(sweep_of(conf, tmp_path, STUDY))
    with pytest.raises(UserError, match=r"controls: bse is no row of the table; known are teacher, base, base_opd"):
        check_controls(sweep_of(conf, tmp_path, STUDY.replace("controls: [base]", "controls: [bse]")))


def test_parent_is_the_run_that_a_run_starts_from(conf, tmp_path):
    rows = {row.label: row for row in rows_of(sweep_of(conf, tmp_path, TWO_RUNS))}
    assert rows["top_k-4/base_td_opd"].parent() == rows["top_k-4/base_td"]
    assert rows["top_k-4/base_td"].parent() == rows["base"] and rows["base"].parent() is None
