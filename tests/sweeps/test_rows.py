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


def test_unknown_control_is_refused(conf, tmp_path):
    check_controls(sweep_of(conf, tmp_path, STUDY))
    with pytest.raises(UserError, match=r"controls: bse is no row of the table; known are teacher, base, base_opd"):
        check_controls(sweep_of(conf, tmp_path, STUDY.replace("controls: [base]", "controls: [bse]")))


def test_parent_is_the_run_that_a_run_starts_from(conf, tmp_path):
    rows = {row.label: row for row in rows_of(sweep_of(conf, tmp_path, TWO_RUNS))}
    assert rows["top_k-4/base_td_opd"].parent() == rows["top_k-4/base_td"]
    assert rows["top_k-4/base_td"].parent() == rows["base"] and rows["base"].parent() is None
