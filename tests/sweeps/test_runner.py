"""Running tasks: order, failures, signals, and several processes in one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sweeps import Instant, write_sweep

from arkasr.sweeps import runner as module
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.runner import STATE, Runner
from arkasr.sweeps.sweep_file import read_sweep
from arkasr.utils.files import locked

TEXT = "conf: CONF\nshared: [teacher, base]\nruns: [base_opd]\ngrid: {distill.top_k: [2, 4]}\nseeds: [1, 2]"
# A stand-in for `arkasr`: it notes its arguments and writes the file that shows that the task is done.
STAND_IN = """
import os, pathlib, sys, time
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--expdir") + 1])
runs = words[words.index("--runs") + 1:] if "--runs" in words else [words[words.index("--run") + 1]]
with open(os.environ["CALLS"], "a") as file:
    file.write(f"{words[0]} {folder.parent.name}/{folder.name}/{' '.join(runs)}\\n")
time.sleep(float(os.environ.get("SECONDS", 0)))
for run in runs:
    path = folder / run / {"train": "final/config.json", "decode": "decoded", "score": "scores.json"}[words[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
"""
PROCESS = """
import os, pathlib, sys
from arkasr.sweeps import runner
from arkasr.sweeps.plan import make_plan
from arkasr.sweeps.processes import Process
from arkasr.sweeps.sweep_file import read_sweep
from arkasr.sweeps.tasks import Folders
file, expdir, stand_in = map(pathlib.Path, sys.argv[1:4])
runner.POLL_SECONDS = 0.02
plan = make_plan(read_sweep(file))
arkasr = sys.executable, "-S", str(stand_in)
launch = lambda task, log, slot: Process(task.commands(Folders(expdir, expdir)), log, {**os.environ}, arkasr)
one = runner.Runner(plan, list(plan.tasks), expdir, 2, launch)
one.run()
print(len([name for name in plan.tasks if one.is_done(name)]), sorted(one.failed), one.stopped, flush=True)
"""


@pytest.fixture
def plan(conf, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    return make_plan(read_sweep(write_sweep(tmp_path, conf, TEXT)))


def run(plan, expdir, launch, jobs=1):
    runner = Runner(plan, list(plan.tasks), expdir, jobs, launch)
    runner.run()
    return runner


def test_shared_runs_are_trained_once_and_finished_tasks_never_again(plan, tmp_path):
    launch = Instant(tmp_path / "exp")
    runner = run(plan, tmp_path / "exp", launch)
    assert launch.ran == list(plan.tasks) and not runner.failed
    run(plan, tmp_path / "exp", launch)
    assert len(launch.ran) == len(plan.tasks)
    (tmp_path / "exp/seed-2/top_k-4/base_opd/final/config.json").unlink()
    run(plan, tmp_path / "exp", launch)
    assert launch.ran[len(plan.tasks) :] == ["seed-2/top_k-4/base_opd"]


def test_failed_task_does_not_stop_others_and_is_tried_again_by_the_next_call(plan, tmp_path):
    launch = Instant(tmp_path / "exp", fails=("seed-1/shared/teacher", "seed-2/top_k-2/base_opd"))
    runner = run(plan, tmp_path / "exp", launch)
    assert runner.failed == dict.fromkeys(launch.fails, "the disk is full; remove files")
    done = [name for name in plan.tasks if runner.is_done(name)]
    assert set(done) == {
        "seed-1/shared/base", "seed-1/shared/score", "seed-2/shared/teacher", "seed-2/shared/base",
        "seed-2/shared/score", "seed-2/top_k-4/base_opd", "seed-2/top_k-4/score",
    }  # fmt: skip
    assert all(launch.ran.count(name) == 1 for name in launch.ran)
    launch.fails = ()
    runner = run(plan, tmp_path / "exp", launch)
    assert not runner.failed and all(map(runner.is_done, plan.tasks))


def test_failure_that_another_process_noted_is_not_tried_again(plan, tmp_path):
    launch = Instant(tmp_path / "exp")
    runner = Runner(plan, list(plan.tasks), tmp_path / "exp", 1, launch)
    note = tmp_path / "exp" / STATE / "failed" / "seed-1/shared/base.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"cause": "no audio"}))
    runner.run()
    assert runner.failed == {"seed-1/shared/base": "no audio"} and "seed-1/shared/base" not in launch.ran
    assert "seed-2/top_k-4/score" in launch.ran


def test_task_without_its_result_has_failed(plan, tmp_path):
    launch = Instant(tmp_path / "elsewhere")
    runner = Runner(plan, ["seed-1/shared/base"], tmp_path / "exp", 1, launch)
    runner.run()
    log = tmp_path / "exp/seed-1/shared/log/base.log"
    assert runner.failed == {"seed-1/shared/base": f"ended without its result; see {log}"}


def started(conf, tmp_path, calls, seconds=0.0, code=PROCESS):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    words = [sys.executable, "-c", code, write_sweep(tmp_path, conf, TEXT), tmp_path / "exp", tmp_path / "stand_in.py"]
    environment = {**os.environ, "CALLS": str(calls), "SECONDS": str(seconds)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_several_processes_share_the_tasks_and_a_killed_one_loses_nothing(conf, tmp_path):
    calls = tmp_path / "calls"
    first = started(conf, tmp_path, calls, seconds=0.4)
    while not calls.exists() or "score seed-1/shared" not in calls.read_text():
        time.sleep(0.02)
    others = [started(conf, tmp_path, calls) for _ in range(2)]
    first.kill()
    first.communicate()
    for other in others:
        assert other.communicate()[0].splitlines()[-1] == "14 [] False"
    ran = calls.read_text().splitlines()
    trained = [line for line in ran if line.startswith("train")]
    repeated = {line for line in trained if trained.count(line) > 1}
    assert len(set(trained)) == 8 and len(repeated) <= 2  # at most the two tasks that were killed
    assert not repeated & {f"train seed-1/shared/{run}" for run in ("teacher", "base")}


@pytest.mark.slow
def test_signal_has_tasks_save_and_starts_no_further_one(conf, tmp_path):
    calls = tmp_path / "calls"
    process = started(conf, tmp_path, calls, seconds=60)
    while not calls.exists() or len(calls.read_text().splitlines()) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].splitlines()[-1] == "0 [] True"
    assert len(calls.read_text().splitlines()) == 2
    assert not list((tmp_path / "exp" / STATE).rglob("failed/**/*.json"))


@pytest.mark.parametrize("place", [f"{STATE}/locks/seed-1/shared/base", "seed-1/shared/base"])
def test_process_waits_for_a_task_of_another_one(tmp_path, plan, capsys, place):
    """The second place is locked by a training that saves its work after its sweep was killed."""
    holder = (
        "import sys, time, pathlib\nfrom arkasr.utils.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'training'):\n    print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "exp" / place
    words = [sys.executable, "-c", holder, str(lock)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other.stdout.readline()
    launch = Instant(tmp_path / "exp")
    runner = Runner(plan, ["seed-1/shared/teacher", "seed-1/shared/base"], tmp_path / "exp", 2, launch)
    assert runner._advance() and runner._advance() and launch.ran == ["seed-1/shared/teacher"]
    assert "seed-1/shared/base: waiting for another process (training" in capsys.readouterr().out
    other.communicate("")
    runner.run()
    assert launch.ran == ["seed-1/shared/teacher", "seed-1/shared/base"]
    with locked(lock, "checking"):
        pass  # released


def test_experiment_is_scored_again_after_a_run_that_had_failed(plan, tmp_path):
    """Its other runs have scores already, which must not count as done before the failed one is tried again."""
    launch = Instant(tmp_path / "exp", fails=("seed-1/shared/base",))
    run(plan, tmp_path / "exp", launch)
    assert launch.ran.count("seed-1/shared/score") == 1  # of the teacher
    launch.fails = ()
    run(plan, tmp_path / "exp", launch)
    assert launch.ran.count("seed-1/shared/score") == 2
    assert launch.ran.index("seed-1/top_k-2/base_opd") > launch.ran.index("seed-1/shared/base")
