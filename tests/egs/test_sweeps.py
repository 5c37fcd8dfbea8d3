"""The ready-made sweeps: each can be planned, and compares what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arkasr.config.load import config_differences, load_config, run_names
from arkasr.plugins import registry
from arkasr.sweeps.experiments import experiments, once_experiment
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.rows import check_controls, rows_of
from arkasr.sweeps.sweep_file import read_sweep
from arkasr.sweeps.tasks import Folders

EGS = Path(__file__).parents[2] / "egs"
SWEEPS = sorted(EGS.glob("*/conf/sweeps/*.yaml"))


def test_open_questions_of_the_paper_have_a_sweep():
    names = {path.stem for path in SWEEPS if path.parts[-4] == "librispeech"}
    assert names == {
        "study", "top_k", "teacher_strength", "on_policy_share", "temperature", "rollout_length", "loss",
        "learning_rate", "ctc_weight", "better_base",
    }  # fmt: skip


def _listed(sweep):
    return {*sweep.file.once, *sweep.file.shared, *sweep.file.runs}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_sweep_can_be_planned(path):
    sweep = read_sweep(path)
    check_controls(sweep)
    plan = make_plan(sweep)
    assert not plan.blocked(()) and len(rows_of(sweep)) >= 5 and len(sweep.file.seeds) >= 3
    configs = [[each.config(run) for run in each.runs] for each in experiments(sweep)[: len(sweep.points)]]
    for config in (config for of_point in configs for config in of_point):
        registry.check_plugin("loss", config.loss.name, config.loss.options)
    if sweep.points[0].name:
        assert len(set(map(str, configs))) == len(sweep.points)  # they differ
    elif not sweep.file.overrides:  # all rows of a study
        listed = _listed(sweep)
        assert listed <= set(run_names(sweep.conf))
        others = [read_sweep(each) for each in path.parent.iterdir()]
        elsewhere = set().union(*(_listed(each) for each in others if each.conf == sweep.conf))
        for run in set(run_names(sweep.conf)) - elsewhere:  # it would be the same training under another name
            config = load_config(sweep.conf, run, "E", "D")
            assert any(replace(load_config(sweep.conf, name, "E", "D"), run=run) == config for name in listed), run


def test_real_speech_after_synthetic_speech_has_the_same_runs_with_another_start():
    folder = EGS / "speechocean762/conf/sweeps"
    plain, spoken = read_sweep(folder / "real_gpu.yaml"), read_sweep(folder / "real_spoken.yaml")
    assert _listed(spoken) - _listed(plain) == {"pretrained"} and plain.conf == spoken.conf
    once = once_experiment(spoken)
    start, teacher = (once.config(run) for run in ("pretrained", "teacher"))
    assert start.model.freeze == ["encoder"] and teacher.model.path.endswith("pretrained/final")
    assert "spoken" in start.data.train and "spoken" not in teacher.data.train
    tasks = make_plan(spoken).tasks
    for task in ("once/teacher", "seed-2/shared/base"):
        assert "once/pretrained" in tasks[task].needs


def test_weaker_teachers_differ_from_that_of_the_study_in_what_their_names_say():
    sweep = read_sweep(EGS / "librispeech/conf/sweeps/teacher_strength.yaml")
    once, study = once_experiment(sweep), EGS / "librispeech/conf/study.yaml"
    for run in run_names(study):
        assert load_config(sweep.conf, run, "E", "D") == load_config(study, run, "E", "D"), run
    teachers = {run: once.config(run) for run in once.runs}
    last = {"run", "train.steps", "train.final", "train.average"}
    changes = {run: {*config_differences(teachers["teacher"], config)} for run, config in teachers.items()}
    assert changes.pop("teacher") == set() and changes.pop("teacher_1h") == last | {"data.hours"}
    assert changes == dict.fromkeys(("teacher_2500", "teacher_1500", "teacher_1000"), last)
    assert [config.train.steps for config in teachers.values()] == [3500, 2500, 1500, 1000, 1500]
    assert not config_differences(teachers["teacher_1500"], teachers["teacher_1h"], ["run", "data.hours"])


def test_each_point_of_the_teacher_strength_has_a_teacher_that_is_trained_once_and_scored():
    sweep = read_sweep(EGS / "librispeech/conf/sweeps/teacher_strength.yaml")
    plan = make_plan(sweep)
    trained = [name for name in plan.tasks if "/teacher" in name]
    assert trained == [f"once/{run}" for run in sweep.file.once]
    needed = {
        point.name: [name for name in plan.tasks[f"seed-2/{point.name}/base_opd"].needs if name in trained]
        for point in sweep.points
    }
    assert sorted(names for (names,) in needed.values()) == sorted(trained) and needed["full"] == ["once/teacher"]
    assert [row.label for row in rows_of(sweep)][: len(trained)] == sweep.file.once  # rows of their own
    words = plan.tasks["once/score"].commands(Folders(Path("E"), Path("D")))
    assert all(each[each.index("--runs") + 1 :] == sweep.file.once for each in words)
