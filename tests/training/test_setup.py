"""Preparation of runs: learning rate schedule and weight decay."""

from __future__ import annotations

import math

import pytest
import torch

from arkasr.config.schema import OptimConfig
from arkasr.training.setup import make_optimizer


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
