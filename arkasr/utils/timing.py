"""Wall-clock time of the phases of a training step."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Event(Protocol):
    """A point in the queue of a device, such as `torch.cuda.Event(enable_timing=True)`."""

    def record(self) -> None:
        """Put the event into the queue."""

    def synchronize(self) -> None:
        """Wait until the device has reached the event."""

    def elapsed_time(self, end: Any) -> float:
        """Return the time from this event to a later one. The device must have reached both.

        Args:
            end: The later event.

        Returns:
            Milliseconds.
        """


class Phases:
    """Sums of wall-clock seconds per phase. `with phases(name):` times its body as one phase.

    On a GPU, a phase lasts from the moment at which the device reaches its start in the queue of work to that at which
    it reaches its end. The host does not wait for either: only `take` waits once, for all phases together.

    Args:
        device: Device of the work, such as "cuda:0".
        new_event: Creates an event. None: events of CUDA on a GPU, the host's clock elsewhere.

    Attributes:
        current: Name of the innermost open phase on the host, empty if none is open.
        entered: Number of phases that were opened so far, and of calls of `advance`: it shows progress.
    """

    def __init__(self, device: str = "cpu", new_event: Callable[[], Event] | None = None):
        self.device, self.current, self.entered = device, "", 0
        self._new_event = _cuda_event if new_event is None and device.startswith("cuda") else new_event
        self._since: dict[str, Any] = {}
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one phase.

        Args:
            name: Name of the phase. Phases with different names may be nested.

        Yields:
            None, while the phase is open.
        """
        outer, self.current, self.entered = self.current, name, self.entered + 1
        self._since[name] = self._mark()
        try:
            yield
        finally:
            self._spans.append((name, self._since.pop(name), self._mark()))
            self.current = outer

    def _mark(self) -> Any:
        if self._new_event is None:
            return time.perf_counter()
        event = self._new_event()
        event.record()
        return event

    def advance(self) -> None:
        """Count progress inside a long phase, such as one batch of an evaluation."""
        self.entered += 1

    def take(self) -> dict[str, float]:
        """Return the sums and reset them to zero. Phases that are still open are included up to now.

        Returns:
            Seconds by `time/<phase>`.
        """
        now = self._mark()
        spans, self._spans = [*self._spans, *((name, start, now) for name, start in self._since.items())], []
        self._since = dict.fromkeys(self._since, now)
        if self._new_event is not None:
            for event in (now, *(end for *_, end in spans)):
                event.synchronize()  # returns at once after the first, except for a phase of another stream
        seconds: dict[str, float] = defaultdict(float)
        for name, start, end in spans:
            seconds[f"time/{name}"] += end - start if self._new_event is None else start.elapsed_time(end) / 1000
        return dict(seconds)


def _cuda_event() -> Event:
    import torch

    event: Event = torch.cuda.Event(enable_timing=True)
    return event
