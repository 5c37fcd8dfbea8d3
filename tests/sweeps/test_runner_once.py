"""Running the tasks of runs that are trained once for all seeds: shares, several processes, and repeated calls."""

from __future__ import annotations

import pytest
from locks import lock_held
from sweeps import Instant, write_sweep

from arkasr.sweeps import runner as module
from arkasr.sweeps.experiments import experiments
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.runner import STATE, Runner
from arkasr.sweeps.sweep_file import read_sweep

TEXT = "conf: CONF\nonce: [teacher]\nshared: [base]\nruns: [base_opd]\ngrid: {distill.top_k: [2, 4]}\nseeds: [1, 2]"


@pytest.fixture
def plan(conf, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return make_plan(read_sweep(write_sweep(tmp_path, conf, TEXT)))


def test_shares_train_and_score_a_run_once_and_a_repeated_call_trains_what_is_missing(plan, tmp_path):
    launch, points = Instant(tmp_path / "exp"), experiments(plan.tasks["once/teacher"].experiment.sweep)
    for share in (points[::2], points[1::2]):
        Runner(plan, plan.needed_by(share), tmp_path / "exp", 1, launch).run()
    assert sorted(launch.ran) == sorted(plan.tasks) and launch.ran[:2] == ["once/teacher", "once/score"]
    (tmp_path / "exp/once/teacher/final/config.json").unlink()
    Runner(plan, list(plan.tasks), tmp_path / "exp", 1, launch).run()
    assert launch.ran[len(plan.tasks) :] == ["once/teacher"]


def test_process_waits_for_a_run_that_another_one_trains(plan, tmp_path, capsys):
    launch, points = Instant(tmp_path / "exp"), experiments(plan.tasks["once/teacher"].experiment.sweep)
    runner = Runner(plan, plan.needed_by(points[3:]), tmp_path / "exp", 2, launch)
    with lock_held(tmp_path / "exp" / STATE / "locks/once/teacher"):
        for _ in range(6):
            assert runner._advance()
    assert launch.ran == ["seed-2/shared/base"]  # it is scored after the teacher
    assert "once/teacher: waiting for another process" in capsys.readouterr().out
    runner.run()
    assert launch.ran[1:3] == ["once/teacher", "once/score"] and not runner.failed
