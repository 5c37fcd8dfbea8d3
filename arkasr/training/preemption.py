"""Stopping a run from outside: signals of schedulers, handled between two steps."""

from __future__ import annotations

import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from arkasr.utils.ending import end_process

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
REPEAT_SECONDS = 2.0  # a SIGTERM that follows sooner is a copy: launchers and schedulers may send it several times


class Preemption:
    """Context manager in which SIGTERM and SIGUSR1 set a flag and do not end the process.

    A second SIGTERM, at least `REPEAT_SECONDS` after the first one, ends the process at once, for example because the
    step does not end. A thread watches for it, because Python's handlers wait for the end of calls into libraries.

    Attributes:
        requested: Whether a signal has arrived. Launchers may repeat signals.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1
        self._sent: socket.socket | None = None

    def __enter__(self) -> Preemption:
        received, self._sent = socket.socketpair()
        self._sent.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._sent.fileno(), warn_on_full_buffer=False)
        self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
        threading.Thread(target=_end_at_second_sigterm, args=(received,), daemon=True).start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        if self._sent is not None:
            self._sent.close()  # ends the thread

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True  # do nothing else here: a handler may interrupt a write to the terminal


def _end_at_second_sigterm(numbers: socket.socket) -> None:
    """Read the numbers of arriving signals, until the other end is closed."""
    first: float | None = None
    with numbers:
        while received := numbers.recv(64):
            if signal.SIGTERM not in received:
                continue
            first = time.monotonic() if first is None else first
            if time.monotonic() - first >= REPEAT_SECONDS:
                message = "a second SIGTERM ended the process before its step was finished and saved"
                what_to_do = "run the same command again to resume from the last checkpoint"
                end_process(128 + signal.SIGTERM, f"{message}; {what_to_do}")
