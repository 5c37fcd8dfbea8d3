"""Stopping a run from outside: signals of schedulers, handled between two steps, and the death of the launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_launcher() -> None:
    """Ask the kernel to send SIGTERM to this process when torchrun, its parent, dies (Linux only).

    Otherwise a rank would continue after its torchrun was killed, and write to the directory of the next launch.
    A process that was started by hand is not affected, because its shell may exit earlier.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Preemption:
    """Context manager in which SIGTERM and SIGUSR1 set a flag and do not end the process.

    Attributes:
        requested: Whether a signal has arrived. Launchers may repeat signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Preemption:
        self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True  # do nothing else here: a handler may interrupt a write to the terminal
