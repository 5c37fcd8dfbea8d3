"""Repeat a run with the same seed and other rounding errors, to measure how much of a result is rounding.

Floating-point sums depend on their order, so another processor, number of threads or batch layout rounds differently.
Training amplifies such differences: a change in the last place of the first weights leads to as much variation as all
other causes together (Summers and Dinneen, ICML 2021, arXiv:2103.04514). That change is made here, because it
is repeatable, unlike the order of sums.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def shift_last_places(model: nn.Module, variant: int) -> None:
    """Move each trained weight to the next larger or next smaller number of its data type, at random.

    Weights that are 0 stay 0. No other random generator is used, so data, sampling and fresh weights are those of the
    same seed.

    Args:
        model: The model. Parameters without gradient are not changed.
        variant: Seed of the directions. 0 changes nothing.
    """
    if not variant:
        return
    generator = torch.Generator().manual_seed(variant)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.requires_grad:
                up = torch.rand(weights.shape, generator=generator) < 0.5
                far = torch.where(up, math.inf, -math.inf).to(weights.dtype)
                weights.copy_(torch.where(weights == 0, weights, torch.nextafter(weights, far)))
