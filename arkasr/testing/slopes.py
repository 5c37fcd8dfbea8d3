"""Compare a gradient with finite differences of the function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

STEPS = (0.1, 0.03, 0.01, 0.003, 0.001)  # strongly curved functions need a short step, rounded values a long one
DIRECTIONS = 4
TOLERANCE = 0.01  # as a fraction of the gradient's norm

Value = Callable[[list[Tensor]], float]


def wrong_slope(value: Value, point: Sequence[Tensor], gradient: Sequence[Tensor]) -> tuple[float, float] | None:
    """Compare a gradient with central differences (f(x + h d) - f(x - h d)) / (2 h).

    The directions d are the gradient itself and `DIRECTIONS` random ones, each with norm 1 over all tensors together.
    A slope is wrong if it differs by more than `TOLERANCE` for every step h in `STEPS`.

    Args:
        value: The function f.
        point: Its arguments x.
        gradient: The gradient to check, one tensor per argument, not all 0.

    Returns:
        The first wrong slope, as implied by the gradient and by differences, or None if all slopes agree.
    """
    norm = float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())
    for direction in _directions(gradient):
        implied = sum(float((g.double() * d.double()).sum()) for g, d in zip(gradient, direction))
        measured = 0.0
        for step in STEPS:
            up, down = (value([p + h * d for p, d in zip(point, direction)]) for h in (step, -step))
            measured = (up - down) / (2 * step)
            if abs(measured - implied) <= TOLERANCE * norm:
                break
        else:
            return implied, measured
    return None


def _directions(gradient: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    random = [[torch.randn(g.shape, generator=generator).to(g) for g in gradient] for _ in range(DIRECTIONS)]
    for parts in ([g.clone() for g in gradient], *random):
        norm = torch.stack([part.square().sum() for part in parts]).sum().sqrt()
        yield [part / norm for part in parts]
