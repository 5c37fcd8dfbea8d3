"""A rank ends with its torchrun, and at a second SIGTERM. A process started by hand outlives its shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import has_ended

from arkasr.training.preemption import REPEAT_SECONDS

ROOT = Path(__file__).parents[2]
RANK = "import time; from arkasr.utils.process import end_with_launcher as f; f(); print('ready', flush=True); "
RANK += "time.sleep(60)"
LAUNCHER = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); print(p.pid, flush=True); "
)
LAUNCHER += "p.wait()"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl(2) and /proc of Linux")


def rank_of_killed_launcher(env: dict[str, str]) -> int:
    """Start a launcher and its rank, kill the launcher, and return the rank's process id."""
    command, env = [sys.executable, "-c", LAUNCHER, RANK], env | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as launcher:
        rank = int(launcher.stdout.readline())
        assert launcher.stdout.readline() == "ready\n"
        launcher.kill()
    return rank


def test_rank_ends_when_its_torchrun_is_killed():
    rank = rank_of_killed_launcher(os.environ | {"TORCHELASTIC_RUN_ID": "none"})
    deadline = time.monotonic() + 30
    while not has_ended(rank):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_process_started_by_hand_outlives_its_shell():
    env = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    rank = rank_of_killed_launcher(env)
    time.sleep(0.3)
    assert not has_ended(rank)
    os.kill(rank, signal.SIGKILL)


HANGS = """
import ctypes, sys, time
from arkasr.training.preemption import Preemption
with Preemption() as preemption:
    print("ready", flush=True)
    if sys.argv[1] == "library":
        for _ in range(9):
            ctypes.CDLL(None).sleep(600)  # Python's signal handlers cannot run; a signal ends only this sleep
    while not preemption.requested or sys.argv[1] == "python":
        time.sleep(0.01)
print("stopped", flush=True)
"""


def started(where: str) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("where", ["python", "library"])
def test_second_sigterm_ends_a_process_that_hangs(where):
    with started(where) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(REPEAT_SECONDS + 0.5)
        assert process.poll() is None  # the first one only asks it to stop after the step
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert "arkasr train: error: a second SIGTERM ended the process" in process.stderr.read()


@pytest.mark.slow
def test_repeated_copies_of_a_signal_do_not_end_the_process():
    with started("step") as process:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
            process.send_signal(number)
        assert process.wait(30) == 0 and process.stdout.read() == "stopped\n"
