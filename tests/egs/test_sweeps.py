"""The ready-made sweeps: each can be planned, and compares what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.config.load import run_names
from arkasr.plugins import registry
from arkasr.sweeps.experiments import experiments
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.rows import check_controls, rows_of
from arkasr.sweeps.sweep_file import read_sweep

EGS = Path(__file__).parents[2] / "egs"
SWEEPS = sorted(EGS.glob("*/conf/sweeps/*.yaml"))


def test_open_questions_of_the_paper_have_a_sweep():
    names = {path.stem for path in SWEEPS if path.parts[-4] == "librispeech"}
    assert names == {
        "study", "top_k", "teacher_strength", "on_policy_share", "temperature", "rollout_length", "loss",
        "learning_rate",
    }  # fmt: skip


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
    else:
        assert {*sweep.file.once, *sweep.file.shared, *sweep.file.runs} == set(run_names(sweep.conf))
