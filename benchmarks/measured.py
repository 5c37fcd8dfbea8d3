"""Time and peak memory of a piece of work, on a GPU or on a CPU under Linux."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch


def seconds(work: Callable[[], object], device: str) -> float:
    """Run `work` and wait for the device."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Run `work` and return by how much the peak exceeds what lay there before: of the allocator, or of the process."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # else what earlier work left free hides what this one needs
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is the present size from here on
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
