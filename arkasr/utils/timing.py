"""Seconds spent in the named phases of a step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Adds up wall-clock seconds by phase; on a GPU the device is waited for at each phase's end.

    current: the innermost phase that is open, empty where none is; entered: how many have been begun so far.
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.current, self.entered = device, "", 0
        self.seconds: dict[str, float] = defaultdict(float)
        self._since: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        around, self.current, self.entered = self.current, name, self.entered + 1
        self._since[name] = time.perf_counter()
        try:
            yield
        finally:
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.synchronize()
            self.seconds[name] += time.perf_counter() - self._since.pop(name)
            self.current = around

    def take(self) -> dict[str, float]:
        """Return the sums so far, phases still open included, as `time/<phase>`, and start anew."""
        now = time.perf_counter()
        for name, start in self._since.items():
            self.seconds[name] += now - start
            self._since[name] = now
        taken = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        self.seconds.clear()
        return taken
