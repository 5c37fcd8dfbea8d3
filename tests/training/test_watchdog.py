"""A run in which a rank hangs ends by itself and names that rank. This file is its own worker: torchrun starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from arkasr.training.ranks import Ranks
from arkasr.training.watchdog import HANG_STATUS, Watchdog, verdict
from arkasr.utils.timing import Phases

ROOT = Path(__file__).parents[2]


def beat(entered: int, beats: int, host: str = "a", phase: str = "student") -> dict:
    return {"entered": entered, "phase": phase, "beats": beats, "host": host}


def test_the_rank_that_is_behind_is_named():
    first = [beat(7, 1), beat(6, 1, "b", "data"), beat(7, 1)]
    later = [beat(7, 2), beat(6, 2, "b", "data"), beat(7, 2)]
    said = verdict(first, later, 0, 30)
    assert said == "arkasr: rank 0: no progress for 30 s; behind: rank 1 on b (in data, the 6th begun)"


def test_a_rank_without_a_sign_of_life_is_named_before_one_that_is_behind():
    first = [beat(7, 1), beat(5, 1), beat(7, 4, "b"), None]
    later = [beat(7, 2), beat(5, 2), beat(7, 4, "b"), None]
    assert "silent: rank 2 on b (in student, the 7th begun), rank 3 (never heard of)" in verdict(first, later, 0, 30)


def test_where_all_wait_at_one_place_all_are_named():
    said = verdict([beat(7, 1), beat(7, 1)], [beat(7, 2), beat(7, 2)], 1, 30)
    assert "all at one place: rank 0 on a" in said and "rank 1 on a" in said


def test_one_that_moves_or_is_alone_is_let_be():
    phases = Phases()
    with Watchdog(Ranks(), phases, 0.1):
        time.sleep(0.3)


LOST = """
import sys, threading
from arkasr.timing import Phases
from arkasr.training.ranks import Ranks
from arkasr.training.watchdog import Watchdog

class Lost:  # a store on a host without power: it neither answers nor closes the connection
    def add(self, key, by):
        threading.Event().wait()

watchdog = Watchdog(Ranks(), Phases(), 0.5)
if sys.argv[1] == "end":
    watchdog._end(Lost())
watchdog._watch = lambda: Lost().add("speaker", 1)
watchdog._thread = threading.Thread(target=watchdog._watch, daemon=True)
watchdog._thread.start()
watchdog.__exit__()
"""


@pytest.mark.parametrize(("what", "status"), [("end", HANG_STATUS), ("exit", 0)])
def test_a_store_that_never_answers_holds_nobody(what, status):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}"}
    done = subprocess.run([sys.executable, "-c", LOST, what], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == status, done.stderr
    assert ("no progress for 0.5 s, and the host of rank 0 does not answer" in done.stderr) == (what == "end")


def worker() -> None:
    """Take three steps together; then rank 1 sleeps where it should read data."""
    ranks, phases = Ranks(1), Phases()
    with Watchdog(ranks, phases, 2.0):
        for step in range(5):
            with phases("data"):
                time.sleep(3600 if (ranks.rank, step) == (1, 3) else 1.0)  # longer than the time-out altogether
            with phases("step"):
                ranks.barrier()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_a_rank_that_hangs_ends_the_run_by_name():
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(launch, check=False, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode != 0 and f"exitcode  : {HANG_STATUS}" in done.stderr
    assert "no progress for 2 s; behind: rank 1 on " in done.stderr and "(in data, the 7th begun)" in done.stderr


if __name__ == "__main__":
    worker()
