"""AdamW, weight decay, learning rates per part of the model, and the schedule."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tiny import student

from arkasr.config.schema import OptimConfig, TrainConfig
from arkasr.training.gradients import gradient_norm, gradients, scale_and_clip
from arkasr.training.length import RunLength
from arkasr.training.optimizer import make_optimizer, unscaled_rate


def in_steps(steps: int, warmup_steps: int = 0) -> RunLength:
    return RunLength(TrainConfig(steps=steps), warmup_steps)


def rates(steps: int, **changes) -> list[float]:
    lm = torch.nn.Linear(2, 2)
    config = OptimConfig(lr=2.0, **changes)
    optimizer, schedule = make_optimizer(config, in_steps(steps, config.warmup_steps), lm)
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


@pytest.mark.parametrize(("decay", "bias"), [("matrices", 0.0), ("all", 0.3)])
def test_weight_decay_applies_to_matrices_or_all_parameters(decay, bias):
    lm = torch.nn.Linear(3, 3)
    optimizer, _ = make_optimizer(OptimConfig(weight_decay=0.3, decay=decay, betas=[0.5, 0.6]), in_steps(10), lm)
    found = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert found == {id(lm.weight): 0.3, id(lm.bias): bias}
    assert all(group["betas"] == (0.5, 0.6) for group in optimizer.param_groups)


def model(seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(5, 4)


def set_gradients(lm: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for p in lm.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def reference_adamw(lm, steps, lr, decay, betas, eps=1e-8):
    """Return the parameters after AdamW (Loshchilov & Hutter 2019, algorithm 2), in float64."""
    results = []
    for number, p in enumerate(lm.parameters()):
        theta, m, v = p.detach().double(), torch.zeros(p.shape).double(), torch.zeros(p.shape).double()
        for t in range(1, steps + 1):
            set_gradients(lm, t)
            g = list(lm.parameters())[number].grad.double()
            m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            step = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
            theta = theta - lr * (decay if p.ndim >= 2 else 0.0) * theta - lr * step
        results.append(theta)
    return results


def test_optimizer_is_adamw():
    lm, config = model(), OptimConfig(lr=0.1, weight_decay=0.2, betas=[0.8, 0.9], schedule="constant", warmup_steps=0)
    expected = reference_adamw(lm, 6, 0.1, 0.2, (0.8, 0.9))
    optimizer, _ = make_optimizer(config, in_steps(10), lm)
    for step in range(1, 7):
        set_gradients(lm, step)
        optimizer.step()
    for p, theta in zip(lm.parameters(), expected):
        torch.testing.assert_close(p.detach().double(), theta, rtol=1e-5, atol=1e-6)


def test_optimizer_continues_from_a_state_that_was_not_fused():
    config = OptimConfig(lr=0.1, schedule="constant", warmup_steps=0)
    lm, older = model(), model()
    optimizer, _ = make_optimizer(config, in_steps(10), lm)
    before = torch.optim.AdamW(
        [{**g, "fused": False} for g in make_optimizer(config, in_steps(10), older)[0].param_groups]
    )
    for step in range(1, 4):
        set_gradients(older, step)
        before.step()
    lm.load_state_dict(older.state_dict())
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    assert all(group["fused"] for group in optimizer.param_groups)
    assert not any(group["fused"] for group in before.state_dict()["param_groups"])  # the given state is not changed
    for step in range(4, 7):
        for one, its_optimizer in ((lm, optimizer), (older, before)):
            set_gradients(one, step)
            its_optimizer.step()
    assert all(state["step"] == 6 for state in optimizer.state.values())
    torch.testing.assert_close(lm.state_dict(), older.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scale", "limit"), [(0.01, 1e9), (0.01, 0.002), (2.0, 0.5)])
def test_gradients_are_scaled_and_clipped_as_in_two_steps(scale, limit):
    lm, other = model(), model()
    for one in (lm, other):
        set_gradients(one, 3)
    norm = gradient_norm(gradients(lm.parameters()))
    scale_and_clip(gradients(lm.parameters()), scale, float(norm), limit)
    for p in other.parameters():
        p.grad.mul_(scale)
    expected = torch.nn.utils.clip_grad_norm_(other.parameters(), limit)
    assert float(norm) * scale == pytest.approx(float(expected), rel=1e-6)
    for p, q in zip(lm.parameters(), other.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-8)


def test_gradients_without_any_are_left_alone():
    lm = model()
    assert gradients(lm.parameters()) == [] and float(gradient_norm([])) == 0.0
    scale_and_clip([], 1.0, 0.0, 1.0)


# A learning rate per part


@pytest.mark.parametrize("decay", ["matrices", "all"])
def test_each_part_is_trained_as_by_an_optimizer_of_its_own_learning_rate(decay):
    """The reference has one AdamW per part, and finds the parts by the names of the parameters."""
    scales, config = {"encoder": 0.25, "adapter": 4.0}, {"weight_decay": 0.2, "warmup_steps": 2, "decay": decay}
    lm, reference = student(3), student(3)
    for each in (lm, reference):
        torch.manual_seed(5)
        each.add_ctc_head()
    optimizer, schedule = make_optimizer(OptimConfig(lr=0.01, lr_scale=scales, **config), in_steps(6, 2), lm)
    marks = {"encoder": ("audio_tower",), "adapter": ("projector", "ctc_head"), "decoder": ("language_model",)}
    singles = []
    for part, names in marks.items():
        own = torch.nn.ParameterList(p for n, p in reference.named_parameters() if any(m in n for m in names))
        singles.append(make_optimizer(OptimConfig(lr=0.01 * scales.get(part, 1.0), **config), in_steps(6, 2), own))
    assert sum(len(g["params"]) for o, _ in singles for g in o.param_groups) == len(list(lm.parameters()))
    rates = []
    for step in range(4):
        for each, pairs in ((lm, [(optimizer, schedule)]), (reference, singles)):
            set_gradients(each, step)
            rates += [unscaled_rate(OptimConfig(lr=0.01), schedule)] if each is lm else []
            for one, its_schedule in pairs:
                one.step()
                its_schedule.step()
    for (name, found), expected in zip(lm.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9, msg=name)
    assert rates[:3] == pytest.approx([0.005, 0.01, 0.01])  # as logged: of parts with the factor 1


def test_equal_factors_keep_the_groups_of_earlier_checkpoints():
    lm = student(3)
    plain, scaled = (make_optimizer(OptimConfig(lr=lr, lr_scale=s), in_steps(6), lm)[0] for lr, s in (
        (0.02, {}), (0.01, dict.fromkeys(("encoder", "adapter", "decoder"), 2.0)),
    ))  # fmt: skip
    found = [[(g["lr"], g["weight_decay"], len(g["params"])) for g in o.param_groups] for o in (plain, scaled)]
    assert found[0] == found[1] and len(found[0]) == 2
