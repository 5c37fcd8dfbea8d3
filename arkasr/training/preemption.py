"""SIGTERM and SIGUSR1, by which schedulers announce the end: noted here, acted on between two steps."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Inside, the two signals end nothing: `requested` says that one came, however often (launchers repeat them)."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Preemption:
        self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True  # no more than this: a handler may interrupt a write to the terminal
