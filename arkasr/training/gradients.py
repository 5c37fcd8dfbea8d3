"""The norm of the whole gradient, and its scaling and clipping in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

ROUNDING = 1e-6  # added to the norm before the division, as torch.nn.utils.clip_grad_norm_ does


def gradients(params: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the gradients that exist.

    Args:
        params: Parameters of a model, sharded or not.

    Returns:
        Their gradients, without those of parameters that had none.
    """
    return [p.grad for p in params if p.grad is not None]


def gradient_norm(grads: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all gradients together. The host does not wait for it.

    Args:
        grads: The gradients. Shards are gathered over ranks.

    Returns:
        Scalar on the device.
    """
    total = torch.nn.utils.get_total_norm(grads)
    return total.full_tensor() if isinstance(total, DTensor) else total


def scale_and_clip(grads: Sequence[Tensor], scale: float, norm: float, limit: float) -> None:
    """Multiply all gradients in place by `scale`, and by a further factor if their norm would exceed `limit`.

    Args:
        grads: The gradients.
        scale: Factor, such as 1 over the number of tokens.
        norm: 2-norm of all gradients together, before scaling.
        limit: Largest norm after scaling.
    """
    factor = scale * min(1.0, limit / (norm * scale + ROUNDING))
    if grads:
        torch._foreach_mul_(cast("list[Tensor]", grads), factor)
