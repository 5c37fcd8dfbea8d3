"""Is what is called a gradient the slope of the sum? The sum itself tells, a little to both sides of a point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

STEPS = (0.1, 0.03, 0.01, 0.003, 0.001)  # curved sums need a short one, sums that round much a long one
DIRECTIONS = 4
NEAR = 0.01  # of the gradient's length

Value = Callable[[list[Tensor]], float]


def wrong_slope(value: Value, point: Sequence[Tensor], gradient: Sequence[Tensor]) -> tuple[float, float] | None:
    """Return a slope by the gradient and by value(point), where these differ at every step; None where none does.

    Looked along are the gradient itself, which must not be 0, and DIRECTIONS random ones, of length 1 over all
    tensors together. Found are central differences: (f(x + h d) - f(x - h d)) / (2 h).
    """
    length = float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())
    for direction in _directions(gradient):
        given = sum(float((g.double() * d.double()).sum()) for g, d in zip(gradient, direction))
        found = 0.0
        for step in STEPS:
            up, down = (value([p + h * d for p, d in zip(point, direction)]) for h in (step, -step))
            found = (up - down) / (2 * step)
            if abs(found - given) <= NEAR * length:
                break
        else:
            return given, found
    return None


def _directions(gradient: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    draw = torch.Generator().manual_seed(3)
    drawn = [[torch.randn(g.shape, generator=draw).to(g) for g in gradient] for _ in range(DIRECTIONS)]
    for parts in ([g.clone() for g in gradient], *drawn):
        length = torch.stack([part.square().sum() for part in parts]).sum().sqrt()
        yield [part / length for part in parts]
