"""Flags that the host reads while the device continues to work."""

from __future__ import annotations

import torch
from torch import Tensor


class LateFlags:
    """Copies flags to the host without waiting for them. `read` waits for the copy.

    Args:
        flags: Tensor [B], bool, on any device.
    """

    def __init__(self, flags: Tensor):
        self._event: torch.cuda.Event | None = None
        if flags.is_cuda:
            self._host = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
            self._host.copy_(flags, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = flags.clone()

    def read(self) -> list[bool]:
        """Return the flags as they were at the copy."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()
