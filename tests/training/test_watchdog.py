"""The watchdog ends the run in which one rank hangs, and names that rank.

torchrun starts this file as the worker script.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from forked_ranks import copied, status_of
from processes import wait_until

from arkasr.training.ranks import Ranks
from arkasr.training.watchdog import HANG_STATUS, Watchdog, describe_hang, describe_lone_hang
from arkasr.utils.timing import Phases

ROOT = Path(__file__).parents[2]


def beat(entered: int, beats: int, host: str = "a", phase: str = "student") -> dict:
    return {"entered": entered, "phase": phase, "beats": beats, "host": host}


def test_describe_hang_names_rank_that_is_behind():
    first = [beat(7, 1), beat(6, 1, "b", "data"), beat(7, 1)]
    later = [beat(7, 2), beat(6, 2, "b", "data"), beat(7, 2)]
    message = describe_hang(first, later, 0, 30)
    assert message == "arkasr: rank 0: no progress for 30 s; behind: rank 1 on b (in data, phase number 6)"


def test_describe_hang_prefers_silent_ranks_to_ranks_that_are_behind():
    first = [beat(7, 1), beat(5, 1), beat(7, 4, "b"), None]
    later = [beat(7, 2), beat(5, 2), beat(7, 4, "b"), None]
    message = describe_hang(first, later, 0, 30)
    assert "silent: rank 2 on b (in student, phase number 7), rank 3 (never reported)" in message


def test_describe_hang_names_all_ranks_that_wait_at_the_same_point():
    message = describe_hang([beat(7, 1), beat(7, 1)], [beat(7, 2), beat(7, 2)], 1, 30)
    assert "all ranks wait at the same point: rank 0 on a" in message and "rank 1 on a" in message


def test_describe_lone_hang_names_phase_and_remedy():
    message = describe_lone_hang("data", 30)
    assert message.startswith("no progress for 30 s in phase data; check the audio's file system and") and (
        "run the same command again" in message and "train.hang_seconds" in message
    )


def lone(hangs: bool, beats: int = 4) -> None:
    phases = Phases()
    with Watchdog(Ranks(), phases, 1.0):
        print("started", flush=True)
        for _ in range(beats):
            with phases("student"):
                time.sleep(0.5)  # in total longer than the timeout
        with phases("dev"):
            for _ in range(beats):
                time.sleep(0.5)
                phases.advance()
        if hangs:
            with phases("data"):
                time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize(("hangs", "status"), [(False, 0), (True, HANG_STATUS)])
def test_lone_rank_that_hangs_ends_with_one_sentence(tmp_path, hangs, status):
    output = tmp_path / "output"
    assert status_of(copied(lambda: lone(hangs), output)) == status, output.read_text()
    expected = "arkasr train: error: no progress for 1 s in phase data; check the audio's file system"
    printed = [line[: len(expected)] for line in output.read_text().splitlines()]
    assert printed == ["started"] + [expected] * hangs


@pytest.mark.slow
def test_time_in_which_the_process_is_stopped_does_not_count(tmp_path):
    output = tmp_path / "output"
    pid = copied(lambda: lone(False, beats=8), output)
    wait_until(lambda: output.is_file() and output.read_text() == "started\n")
    time.sleep(1)  # it is in its first loop
    os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    os.kill(pid, signal.SIGCONT)
    assert status_of(pid) == 0, output.read_text()


class Lost:
    """The store of a host without power: it neither answers nor closes the connection."""

    def add(self, *_args: object) -> None:
        threading.Event().wait()


def lost(what: str) -> None:
    watchdog = Watchdog(Ranks(), Phases(), 0.5)
    if what == "end":
        watchdog._end(Lost())
    watchdog._watch = lambda: Lost().add("reporter", 1)
    watchdog._thread = threading.Thread(target=watchdog._watch, daemon=True)
    watchdog._thread.start()
    watchdog.__exit__()


@pytest.mark.distributed
@pytest.mark.parametrize(("what", "status"), [("end", HANG_STATUS), ("exit", 0)])
def test_store_that_never_answers_does_not_block_the_process(tmp_path, what, status):
    output = tmp_path / "output"
    assert status_of(copied(lambda: lost(what), output)) == status, output.read_text()
    assert ("and the host of rank 0 does not answer" in output.read_text()) == (what == "end")


def worker() -> None:
    """Take three steps together, then let rank 1 sleep when it should read data."""
    ranks, phases = Ranks(1), Phases()
    with Watchdog(ranks, phases, 3.0):
        for step in range(5):
            with phases("data"):
                time.sleep(3600 if (ranks.rank, step) == (1, 3) else 1.2)  # in total longer than the timeout
            with phases("step"):
                ranks.barrier()


@pytest.mark.distributed
@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_hanging_rank_ends_the_run_and_is_named():
    """Under torchrun, because it ends the ranks that wait."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(launch, check=False, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode != 0 and f"exitcode  : {HANG_STATUS}" in done.stderr
    assert "no progress for 3 s; behind: rank 1 on " in done.stderr and "(in data, phase number 7)" in done.stderr


if __name__ == "__main__":
    worker()
