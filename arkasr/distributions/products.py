"""Matrix products in float32 with the output head, for heads of 16-bit or 32-bit numbers.

On a CPU both factors are converted to float32. A GPU multiplies bfloat16 numbers exactly in its tensor cores and adds
them in float32, faster than it multiplies float32 numbers. If only the second factor is bfloat16, the first, such as a
gradient, is written as the sum of two bfloat16 numbers, with a relative error of at most 2^-16. Both are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def uses_tensor_cores(factor: Tensor) -> bool:
    """Return whether products with this factor keep its 16-bit numbers.

    Args:
        factor: Head, or states.

    Returns:
        True for bfloat16 on a GPU. float16 has too few exponents for gradients.
    """
    return factor.is_cuda and factor.dtype == torch.bfloat16


def widened(factor: Tensor) -> Tensor:
    """Convert a factor once, if it would otherwise be converted in each of several products.

    Args:
        factor: Tensor, any floating dtype.

    Returns:
        The factor itself if products keep its numbers, else float32.
    """
    return factor if uses_tensor_cores(factor) else factor.float()


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b`, without gradient.

    Args:
        a: Tensor [N, K] or [R, N, K], any floating dtype.
        b: Tensor [K, M] or [R, K, M], any floating dtype.

    Returns:
        Tensor [N, M] or [R, N, M], float32.
    """
    with torch.autocast(a.device.type, enabled=False):
        if not uses_tensor_cores(b):
            return a.float() @ b.float()
        first, *rest = (_multiply(part, b) for part in _parts(a, b.dtype))
        return first + rest[0] if rest else first


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add `a @ b` to a matrix in place.

    Args:
        total: Tensor [N, M], float32.
        a: Tensor [N, K], any floating dtype.
        b: Tensor [K, M], any floating dtype.
    """
    with torch.autocast(a.device.type, enabled=False):
        if uses_tensor_cores(b):
            total += product(a, b)
        else:
            torch.addmm(total, a.float(), b.float(), out=total)


def scores(states: Tensor, weight: Tensor) -> Tensor:
    """Return `states @ weight.T`, with gradient through autograd.

    Args:
        states: Tensor [P, H], any floating dtype.
        weight: Tensor [V, H], any floating dtype.

    Returns:
        Tensor [P, V], float32.
    """
    if uses_tensor_cores(weight):
        apply = cast("Callable[..., Tensor]", _Scores.apply)  # torch does not annotate Function.apply
        return apply(states, weight)
    with torch.autocast(states.device.type, enabled=False):
        return states.float() @ weight.float().T


class _Scores(torch.autograd.Function):
    """`scores` for factors that stay bfloat16."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return product(states, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        of_states, of_weight = ctx.needs_input_grad
        return (
            product(grad, weight).to(states.dtype) if of_states else None,
            product(grad.T, states).to(weight.dtype) if of_weight else None,
        )


def _parts(a: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Return one or two tensors of this dtype whose sum is `a`, nearly."""
    if a.dtype == dtype:
        return [a]
    high = a.to(dtype)
    return [high, (a.float() - high.float()).to(dtype)]


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the product of 16-bit matrices, or batches of them, in float32. Only CUDA has this operation."""
    multiply = torch.mm if a.ndim == 2 else torch.bmm
    return multiply(a, b, out_dtype=torch.float32)
