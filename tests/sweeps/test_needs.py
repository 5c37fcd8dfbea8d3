"""What runs of a sweep need from others follows from the paths in their configurations."""

from __future__ import annotations

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.experiments import experiments, shared_experiment
from arkasr.sweeps.needs import LABEL, labels_are_shared, needs_of
from arkasr.sweeps.sweep_file import read_sweep


def point_of(conf, tmp_path, text):
    return experiments(read_sweep(write_sweep(tmp_path, conf, f"conf: CONF\n{text}")))[0]


def test_runs_need_their_parent_teacher_and_labels(conf, tmp_path):
    point = point_of(conf, tmp_path, "shared: [teacher, base]\nruns: [base_opd, base_td, base_td_opd]")
    assert needs_of(shared_experiment(point), "base") == []  # supervised: its section teacher is not read
    assert needs_of(point, "base_opd") == ["base", "teacher"]
    assert needs_of(point, "base_td") == ["base", LABEL]
    assert needs_of(point, LABEL) == ["teacher"]


def test_run_outside_of_the_sweep_is_named(conf, tmp_path):
    with pytest.raises(UserError, match="run base_opd needs the run base, which is not in shared or runs; add it"):
        needs_of(point_of(conf, tmp_path, "shared: [teacher]\nruns: [base_opd]"), "base_opd")
    point = point_of(conf, tmp_path, "shared: [base_td]\nruns: [base, teacher]")
    with pytest.raises(UserError, match="run base_td needs the run base, which is not in shared; add it"):
        needs_of(shared_experiment(point), "base_td")


def test_run_that_starts_from_itself_is_refused(conf, tmp_path):
    point = point_of(conf, tmp_path, 'runs: [base]\noverrides: {model.path: "{expdir}/base/final"}')
    with pytest.raises(UserError, match="run base starts from its own result"):
        needs_of(point, "base")


@pytest.mark.parametrize(
    ("rest", "shared"),
    [
        ("shared: [teacher, base]\ngrid: {distill.top_k: [2]}", True),
        ("shared: [teacher, base]\ngrid: {teacher_data.max_error: [0.5]}", False),
        ('shared: [teacher, base]\npoints: {other: {teacher.options.path: "/some/teacher"}}', False),
        ("shared: [base]\ngrid: {runs.teacher.train.steps: [2]}", False),
    ],
)
def test_labels_are_shared_unless_a_point_changes_them(conf, tmp_path, rest, shared):
    runs = "[base_td]" if "[teacher" in rest else "[teacher, base_td]"
    assert labels_are_shared(point_of(conf, tmp_path, f"runs: {runs}\n{rest}")) is shared
