"""Time and peak memory of a function, on a GPU or on a CPU under Linux."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch


def wait(device: str) -> None:
    """Wait for the pending work of a device.

    Args:
        device: Device type. Nothing happens unless it is `cuda`.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str) -> float:
    """Measure the wall-clock time of a function, including the device's pending work.

    Args:
        work: The function.
        device: Device type, `cuda` or `cpu`.

    Returns:
        Seconds.
    """
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - started


def peak_bytes(work: Callable[[], object], device: str) -> int:
    """Measure the peak memory of a function above the memory in use before.

    Args:
        work: The function.
        device: Device type. `cuda` measures torch's allocator, `cpu` the resident set of the process (Linux).

    Returns:
        Bytes.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # else the function reuses freed memory, which does not show in the peak
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak to the present size
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
