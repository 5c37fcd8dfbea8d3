"""Copies between host and device that do not make the host wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def to_device(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy numbers to a device. On a GPU the copy runs from pinned memory, behind the work that is already queued.

    Args:
        values: A tensor, or numbers as `torch.as_tensor` accepts them.
        device: Target.
        dtype: dtype of the result. None keeps that of the values.

    Returns:
        A tensor on the device.
    """
    import torch

    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
