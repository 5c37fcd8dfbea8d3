"""Processes of tasks: their environment and logs, how they end, and why they failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from arkasr.sweeps.processes import Process, cause, environment

PYTHON = (sys.executable, "-c")


def ended(process: Process, seconds: float = 60) -> int:
    for _ in range(int(seconds / 0.02)):
        if (status := process.poll()) is not None:
            return status
        time.sleep(0.02)
    raise AssertionError("still running")


def test_commands_run_one_after_the_other_and_append_to_the_log(tmp_path):
    log = tmp_path / "log" / "score.log"
    assert ended(Process([["print('one')"], ["print('two')"]], log, {**os.environ}, PYTHON)) == 0
    lines = [line for line in log.read_text().splitlines() if not line.startswith("$ ")]
    assert [line for line in lines if line] == ["one", "two"]


def test_command_that_fails_ends_the_task(tmp_path):
    log = tmp_path / "t.log"
    code = "import sys; print('arkasr train: error: no space; remove files', file=sys.stderr); sys.exit(2)"
    assert ended(Process([[code], ["print('never')"]], log, {**os.environ}, PYTHON)) == 2
    assert cause(log, 2) == "no space; remove files" and "\nnever\n" not in log.read_text()


def test_stopped_task_can_save_and_starts_no_further_command(tmp_path):
    code = "import signal, sys, time\n"
    code += "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
    code += "print('ready', flush=True)\ntime.sleep(60)"
    log = tmp_path / "t.log"
    process = Process([[code], ["print('never')"]], log, {**os.environ}, PYTHON)
    while "\nready\n" not in log.read_text():
        time.sleep(0.02)
    process.stop(kill=False)
    assert ended(process) == 0 and log.read_text().endswith("saved\n")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_task_ends_when_its_sweep_is_killed(tmp_path):
    code = "import os, sys, time, pathlib\nfrom arkasr.sweeps.processes import Process\n"
    code += (
        f"p = Process([['import time; time.sleep(60)']], pathlib.Path({str(tmp_path / 't.log')!r}), {{**os.environ}}, "
    )
    code += "(sys.executable, '-c'))\nprint(p.process.pid, flush=True)\ntime.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(1000):
        try:
            with open(f"/proc/{child}/stat") as file:
                if file.read().split()[2] == "Z":  # dead, and not yet waited for by the process that adopted it
                    return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    raise AssertionError("the task survived its sweep")


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("$ arkasr\narkasr train: error: bad lr; set it", 2, "bad lr; set it"),
        (
            "$ arkasr\narkasr train: error: old\n$ arkasr\nTraceback\nKeyError: 'x'",
            1,
            "KeyError: 'x' (exit status 1, see LOG)",
        ),
        ("$ arkasr", 1, "no output (exit status 1, see LOG)"),
        ("$ arkasr\nstep 5", -9, "killed by SIGKILL; see LOG"),
    ],
)
def test_cause_is_the_last_error_of_the_last_command(tmp_path, text, status, expected):
    log = tmp_path / "t.log"
    log.write_text(f"{text}\n")
    assert cause(log, status) == expected.replace("LOG", str(log))


def test_tasks_share_gpus_and_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = [environment(slot, 3, ["4", "7"], "arkasr sweep f") for slot in range(3)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["4", "7", "4"]
    assert found[0]["OMP_NUM_THREADS"] == str(max(len(os.sched_getaffinity(0)) // 3, 1))
    assert found[0]["ARKASR_RECIPE"] == "arkasr sweep f"
    assert "OMP_NUM_THREADS" not in environment(0, 1, [], "")
