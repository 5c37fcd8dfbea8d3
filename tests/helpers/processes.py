"""Processes seen through /proc. One may end between two reads: an unreadable file means that it has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def arguments(pid: int) -> list[str]:
    """Return the command line of a process, empty if it has ended."""
    return _read(pid, "cmdline").split("\0")[:-1]


def children(pid: int) -> list[int]:
    """Return the process ids of its children."""
    return [int(word) for word in _read(pid, f"task/{pid}/children").split()]


def has_ended(pid: int) -> bool:
    """Return whether a process is gone or a zombie."""
    return _read(pid, "stat").rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Poll a condition until it holds. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"the condition does not hold after {seconds:g} s"
        time.sleep(0.05)
