"""Preparation of a run: learning rate schedule, weight decay, and the directory of the run with its lock."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest
import torch

from arkasr.config.load import load_config
from arkasr.config.schema import OptimConfig
from arkasr.errors import UserError
from arkasr.training.ranks import Ranks
from arkasr.training.setup import make_optimizer, run_directory


def rates(steps: int, **changes) -> list[float]:
    lm = torch.nn.Linear(2, 2)
    optimizer, schedule = make_optimizer(OptimConfig(lr=2.0, **changes), steps, lm)
    found = []
    for _ in range(steps + 2):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedule_warm_up_and_cosine_match_values_computed_by_hand():
    found = rates(12, warmup_steps=4, min_lr_ratio=0.1)
    assert found[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert found[4] == pytest.approx(2.0)  # start of 8 steps of decay: cos 0 = 1
    assert found[6] == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2))  # a quarter of the way
    assert found[8] == pytest.approx(2.0 * 0.55)  # half way
    assert found[12] == found[13] == pytest.approx(0.2)  # the floor


def test_schedule_constant_and_without_warm_up():
    assert rates(5, warmup_steps=2, schedule="constant") == pytest.approx([1.0] + [2.0] * 6)
    assert rates(2, warmup_steps=0, min_lr_ratio=0.0) == pytest.approx([2.0, 1.0, 0.0, 0.0])


def test_weight_decay_applies_to_matrices_only():
    lm = torch.nn.Linear(3, 3)
    optimizer, _ = make_optimizer(OptimConfig(weight_decay=0.3, betas=[0.5, 0.6]), 10, lm)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(lm.weight): 0.3, id(lm.bias): 0.0}
    assert all(group["betas"] == (0.5, 0.6) for group in optimizer.param_groups)


class FirstRank:
    """Rank 0 of several ranks, with the attributes that `run_directory` uses."""

    first = True

    def __init__(self, world_size: int):
        self.world_size = world_size

    def barrier(self) -> None:
        """Do not wait."""


def test_fewer_ranks_may_accumulate_more_batches(conf, datadir, tmp_path):
    def hold(world_size, accumulate):
        config = load_config(str(conf), "base", str(tmp_path), str(datadir), [f"train.accumulate={accumulate}"])
        with run_directory(tmp_path / "base", config, FirstRank(world_size)):
            pass

    hold(24, 1)
    record = tmp_path / "base" / "run.json"
    assert '"batches_per_step": 24' in record.read_text()
    record.write_text(record.read_text().replace("batches_per_step", "batches_a_step"))  # its name in older runs
    hold(8, 3)
    hold(1, 24)
    with pytest.raises(UserError, match=r"other settings \(train.accumulate\)"):
        hold(8, 2)
    hold(12, 2)


LEAVES_A_CHILD = """
import os, sys, time
from pathlib import Path
from arkasr.config.load import load_config
from arkasr.training.ranks import Ranks
from arkasr.training.setup import run_directory
conf, expdir, datadir = sys.argv[1:]
with run_directory(Path(expdir) / "base", load_config(conf, "base", expdir, datadir), Ranks()):
    if child := os.fork():
        print(child, flush=True)
        os._exit(0)
    os.closerange(0, 3)
    time.sleep(600)  # the test kills it
"""


@pytest.mark.slow
def test_process_forked_by_a_killed_run_does_not_hold_the_lock(conf, datadir, tmp_path):
    words = [sys.executable, "-c", LEAVES_A_CHILD, str(conf), str(tmp_path), str(datadir)]
    child = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    try:
        with run_directory(tmp_path / "base", load_config(conf, "base", tmp_path, datadir), Ranks()):
            os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)
