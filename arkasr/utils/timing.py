"""Wall-clock time of the phases of a training step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Sums of wall-clock seconds per phase. `with phases(name):` times its body as one phase.

    Args:
        device: Device of the work, such as "cuda:0". On CUDA, the end of every phase waits for the device.

    Attributes:
        current: Name of the innermost open phase, empty if none is open.
        entered: Number of phases that were opened so far, and of calls of `advance`: it shows progress.
        seconds: Sum of seconds per phase since the last `take`.
    """

    def __init__(self, device: str = "cpu"):
        self.device, self.current, self.entered = device, "", 0
        self.seconds: dict[str, float] = defaultdict(float)
        self._since: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one phase.

        Args:
            name: Name of the phase. Phases with different names may be nested.

        Yields:
            None, while the phase is open.
        """
        outer, self.current, self.entered = self.current, name, self.entered + 1
        self._since[name] = time.perf_counter()
        try:
            yield
        finally:
            if self.device.startswith("cuda"):
                import torch

                torch.cuda.synchronize()
            self.seconds[name] += time.perf_counter() - self._since.pop(name)
            self.current = outer

    def advance(self) -> None:
        """Count progress inside a long phase, such as one batch of an evaluation."""
        self.entered += 1

    def take(self) -> dict[str, float]:
        """Return the sums and reset them to zero. Phases that are still open are included up to now.

        Returns:
            Seconds by `time/<phase>`.
        """
        now = time.perf_counter()
        for name, start in self._since.items():
            self.seconds[name] += now - start
            self._since[name] = now
        taken = {f"time/{name}": seconds for name, seconds in self.seconds.items()}
        self.seconds.clear()
        return taken
