"""What runs of a sweep need from others follows from the paths in their configurations."""

from __future__ import annotations

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.experiments import experiments, shared_experiment
from arkasr.sweeps.needs import LABEL, labels_of, needs_of
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
    message = "run base_opd in runs needs the run base, which is not in once or shared or runs; add it"
    with pytest.raises(UserError, match=message):
        needs_of(point_of(conf, tmp_path, "shared: [teacher]\nruns: [base_opd]"), "base_opd")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("shared: [base_td]\nruns: [base, teacher]", "base_td", "run base_td in shared needs the run base, which is "
         "not in once or shared; move it from runs, or list what needs it there"),
        ("once: [base_td]\nshared: [base]\nruns: [teacher]", "base_td", "run base_td in once needs the run base, which "
         "is not in once; move it from shared, or list what needs it there"),
        ("once: [base_td]\nruns: [base, base_opd]", "base_td", "base, which is not in once; move it from runs"),
        ("once: [base, base_td]\nshared: [teacher]\nruns: [base_opd]", LABEL, "arkasr label in once needs the run "
         "teacher, which is not in once; move it from shared"),
    ],
)  # fmt: skip
def test_run_needs_only_runs_that_are_trained_as_seldom(conf, tmp_path, text, name, message):
    point = point_of(conf, tmp_path, text)
    (owner,) = [each for each in point.above if "base_td" in each.listed]
    with pytest.raises(UserError, match=message):
        needs_of(owner, name)


def test_run_trained_once_may_need_others_and_shared_runs_may_need_it(conf, tmp_path):
    point = point_of(conf, tmp_path, "once: [teacher, base, base_td]\nshared: [base_opd]\nruns: [base_td_opd]")
    once, shared = point.above
    assert needs_of(once, "base_td") == ["base", LABEL] and needs_of(once, LABEL) == ["teacher"]
    assert needs_of(shared, "base_opd") == ["base", "teacher"] and needs_of(point, "base_td_opd") == [
        "base_td",
        "teacher",
    ]


def test_run_that_starts_from_itself_is_refused(conf, tmp_path):
    point = point_of(conf, tmp_path, 'runs: [base]\noverrides: {model.path: "{expdir}/base/final"}')
    with pytest.raises(UserError, match="run base starts from its own result"):
        needs_of(point, "base")


OTHER = 'overrides: {teacher.options.path: "/some/teacher"}'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("once: [teacher]\nshared: [base]\nruns: [base_td]\ngrid: {distill.top_k: [2]}", "once"),
        ("once: [teacher, base]\nruns: [base_td]\nseeds: [3, 4]\nroundings: [1, 2]", "once"),
        ("once: [teacher]\nshared: [base]\nruns: [base_td]\ngrid: {teacher_data.max_error: [0.5]}", "own"),
        ("once: [teacher]\nshared: [base]\nruns: [base_td]\ngrid: {data.max_seconds: [2]}", "own"),
        (f"shared: [base]\nruns: [base_td]\n{OTHER}", "once"),
        (f"runs: [base, base_td]\n{OTHER}", "once"),
        ("shared: [teacher, base]\nruns: [base_td]\ngrid: {distill.top_k: [2]}", "seed-1/shared"),
        ("once: [base]\nshared: [teacher]\nruns: [base_td]", "seed-1/shared"),
        ("shared: [teacher, base]\nruns: [base_td]\ngrid: {teacher_data.max_error: [0.5]}", "own"),
        ('shared: [teacher, base]\nruns: [base_td]\npoints: {other: {teacher.options.path: "/some/teacher"}}', "own"),
        ("shared: [base]\nruns: [teacher, base_td]\ngrid: {runs.teacher.train.steps: [2]}", "own"),
    ],
)
def test_audio_is_labelled_as_seldom_as_its_teacher_is_trained(conf, tmp_path, text, place):
    points = experiments(point_of(conf, tmp_path, text).sweep)
    own = {"own": [each.name for each in points]}
    names = [labels_of(each).name for each in points]
    assert names == own.get(place, [place] * len(points))
