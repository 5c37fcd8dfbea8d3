"""The optimizer of a run and its learning rates: AdamW, a factor per part of the model, and a schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from arkasr.config.schema import OptimConfig
from arkasr.model.build import part_parameters
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.training.length import RunLength
from arkasr.utils.console import log


def make_optimizer(config: OptimConfig, length: RunLength, lm: nn.Module) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Create AdamW and its learning rate schedule.

    AdamW is fused: each step reads and writes parameters and state once, on a CPU too. The schedule is a
    linear warm-up, then a cosine to `min_lr_ratio` times `lr`, or constant. Parts of the model have the rate of the
    schedule times their `lr_scale`.

    Args:
        config: The `optim` section of the configuration.
        length: Length of the run. The cosine follows the share of it that is done.
        lm: The model. Frozen parameters are left out.

    Returns:
        The optimizer and the schedule, which is stepped once per optimizer step.
    """
    groups = _groups(config, lm)
    betas = cast(tuple[float, float], tuple(config.betas))  # YAML lists have no length in their type
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=True)
    optimizer.register_load_state_dict_pre_hook(_fuse)

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = length.after_warmup(step)
        return config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * done)) / 2

    return optimizer, LambdaLR(optimizer, factor)


def _groups(config: OptimConfig, lm: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters by factor of the learning rate, and for each factor by weight decay."""
    params = [p for p in lm.parameters() if p.requires_grad]
    scales = _scales(config, lm, params)
    groups = []
    for scale in dict.fromkeys(scales) or [1.0]:
        own = [p for p, other in zip(params, scales) if other == scale]
        for decays in (True, False):
            some = [p for p in own if (config.decay == "all" or p.ndim >= 2) == decays]
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": some, "weight_decay": decay, "lr": config.lr * scale})
    # torch cannot save more than one group without parameters
    return groups if len(groups) == 2 else [group for group in groups if group["params"]]


def _scales(config: OptimConfig, lm: nn.Module, params: Sequence[nn.Parameter]) -> list[float]:
    """Return the factor of the learning rate of each parameter."""
    if len(factors := {*config.lr_scale.values()}) == 1:
        return [*factors] * len(params)
    scale_of = {p: config.lr_scale[part] for part, own in part_parameters(cast(SpeechLM, lm)).items() for p in own}
    return [scale_of[p] for p in params]


def unscaled_rate(config: OptimConfig, schedule: LambdaLR) -> float:
    """Return the present learning rate of parts whose `optim.lr_scale` is 1.

    Args:
        config: The `optim` section of the configuration.
        schedule: The schedule of `make_optimizer`.

    Returns:
        The learning rate of the next step.
    """
    return float(schedule.get_last_lr()[0]) * (config.lr / float(schedule.base_lrs[0]))


def complete_state(optimizer: torch.optim.Optimizer) -> None:
    """Create the state of parameters that were never updated, as AdamW creates it at their first update.

    Checkpoints then hold the state of all parameters, also of those that have been frozen so far.

    Args:
        optimizer: The optimizer, changed in place.
    """
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        if p not in optimizer.state:
            step = torch.zeros((), dtype=torch.float32, device=p.device)
            optimizer.state[p] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def _fuse(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Make a state that is loaded fused, also if its optimizer was not. Step counters then lie on the device."""
    return {**state, "param_groups": [{**group, "fused": True} for group in state["param_groups"]]}


def restore_schedule(optimizer: torch.optim.Optimizer, schedule: LambdaLR, state: dict[str, Any]) -> None:
    """Continue a schedule from a checkpoint.

    The learning rate of each step follows from the present settings. If the length of the run was raised, it is that
    of a run that had this length from the start, so it may jump at this step.

    Args:
        optimizer: The optimizer, with the learning rates of the checkpoint.
        schedule: Its schedule.
        state: State of the schedule in the checkpoint.
    """
    rates = [base * factor(state["last_epoch"]) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas)]
    before = state["_last_lr"]
    schedule.load_state_dict(state | {"_last_lr": rates})
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    if rates != before:
        was = f"{before[0]:.4g} with the earlier settings"
        log(f"learning rate after step {state['last_epoch']}: {rates[0]:.4g}, {was}")
