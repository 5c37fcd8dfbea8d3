"""A rank ends with the torchrun that started it. A process started by hand outlives its shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import has_ended

ROOT = Path(__file__).parents[2]
RANK = "import time; from arkasr.training.preemption import end_with_launcher as f; f(); print('ready', flush=True); "
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
