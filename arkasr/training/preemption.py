"""How a run is ended from outside: by the signals of schedulers, acted on between two steps, and with its launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_launcher() -> None:
    """Have the kernel send SIGTERM to this process when torchrun, which started it, is gone (Linux only).

    Otherwise a rank whose torchrun was killed trains on unseen, and writes where the next launch does. A process that
    was started by hand is let be: the shell it came from may go.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


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
