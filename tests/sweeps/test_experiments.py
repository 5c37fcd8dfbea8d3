"""Experiment folders of a sweep: their names and the overrides of their runs."""

from __future__ import annotations

import pytest
from sweeps import write_sweep

from arkasr.errors import UserError
from arkasr.sweeps.experiments import Experiment, experiments, once_experiment, shared_experiment
from arkasr.sweeps.repetitions import Repetition, repetitions
from arkasr.sweeps.sweep_file import read_sweep

TEXT = """
conf: CONF
shared: [teacher, base]
runs: [base_opd]
grid: {distill.top_k: [2, 4]}
seeds: [3, 5]
roundings: [0, 1]
overrides: {optim.lr: 0.5, runs.teacher.optim.lr: 0.25, data.train: "{datadir}/x: y.jsonl"}
"""


@pytest.fixture
def sweep(conf, tmp_path):
    return read_sweep(write_sweep(tmp_path, conf, TEXT))


def test_each_repetition_and_point_has_a_folder(sweep):
    names = [each.name for each in experiments(sweep)]
    assert names[:4] == ["seed-3/top_k-2", "seed-3/top_k-4", "seed-3-rounding-1/top_k-2", "seed-3-rounding-1/top_k-4"]
    assert len(names) == 8 and shared_experiment(experiments(sweep)[3]).name == "seed-3/shared"


def test_only_some_seeds_may_be_repeated_with_other_roundings(conf, tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, conf, TEXT + "rounding_seeds: [5]\n"))
    assert repetitions(sweep) == [Repetition(3), Repetition(5), Repetition(5, 1)]


def test_runs_trained_once_have_one_folder_with_the_first_seed_and_no_rounding(conf, tmp_path):
    text = TEXT.replace("shared: [teacher, base]", "once: [teacher]\nshared: [base]")
    points = experiments(read_sweep(write_sweep(tmp_path, conf, text)))
    once, shared = once_experiment(points[0].sweep), shared_experiment(points[3])
    assert once.name == "once" and once.runs == ["teacher"] and shared.runs == ["base"] and once.first == once
    config = once.config("teacher")
    assert (config.seed, config.rounding, config.optim.lr) == (3, 0, 0.25)
    assert points[3].above == [once, shared] and shared.above == [once] and once.above == []


@pytest.mark.parametrize("key", ["once", "shared"])
def test_override_of_a_point_for_a_run_of_all_points_is_refused(conf, tmp_path, key):
    text = f"conf: CONF\n{key}: [base]\nruns: [base_td]\ngrid: {{runs.base.optim.lr: [0.5]}}"
    with pytest.raises(UserError, match=f"point lr-0.5: key runs.base.optim.lr: run base is in `{key}`.*move it to"):
        read_sweep(write_sweep(tmp_path, conf, text))


def test_overrides_reach_the_configuration_of_each_run(sweep):
    point = experiments(sweep)[3]
    config, teacher = point.config("base_opd"), shared_experiment(point).config("teacher")
    assert (config.seed, config.rounding, config.distill.top_k, config.optim.lr) == (3, 1, 4, 0.5)
    assert (teacher.seed, teacher.rounding, teacher.optim.lr) == (3, 0, 0.25)
    assert config.data.train == "{datadir}/x: y.jsonl" and config.model.path == "{expdir}/base/final"


def test_sweep_without_points_has_one_folder_per_seed(conf, tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, conf, "conf: CONF\nruns: [teacher, base]\nskip: [teacher]"))
    (one,) = experiments(sweep)
    assert one.name == "seed-1/runs" and one.runs == ["base"]
    assert Repetition(1, 2).name == "seed-1-rounding-2"


def test_wrong_override_names_the_point(conf, tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, conf, "conf: CONF\nruns: [base]\ngrid: {distill.topk: [2]}"))
    with pytest.raises(UserError, match=r"top_k.yaml: point topk-2, run base: command line: unknown key distill.topk"):
        Experiment(sweep, Repetition(1), sweep.points[0]).config("base")
