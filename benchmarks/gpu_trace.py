"""What torch's profiler sees of a piece of work on a GPU: busy time, launches, synchronisations, copies to the host."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}  # categories of events that occupy the device
CALLS = {"cuda_runtime", "cuda_driver"}  # categories of calls by the host
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch")  # beginnings of names
GRAPHS = ("cudaGraphLaunch", "cuGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
WAITS += ("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize")


@dataclass(frozen=True)
class Trace:
    """Counts of one piece of work.

    Attributes:
        busy: Seconds in which at least one kernel, copy or fill ran on the device.
        launches: Kernels and CUDA graphs that the host launched.
        graphs: CUDA graphs among them.
        syncs: Calls by which the host waited for the device.
        copies: Copies from the device to the host.
    """

    busy: float
    launches: int
    graphs: int
    syncs: int
    copies: int

    def less(self, other: Trace) -> Trace:
        """Return the counts without those of other work, such as an empty trace. Busy time is not changed."""
        return Trace(
            self.busy,
            self.launches - other.launches,
            self.graphs - other.graphs,
            self.syncs - other.syncs,
            self.copies - other.copies,
        )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals.

    Args:
        spans: Pairs of start and end, in any order and unit.

    Returns:
        The length in the same unit.
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def summarise(events: Iterable[dict[str, Any]]) -> Trace:
    """Count the events of a trace in Chrome's format, as torch's profiler exports it.

    Args:
        events: The list `traceEvents`. Times are in microseconds.

    Returns:
        The counts.
    """
    spans, names, copies = [], [], 0
    for event in events:
        category, name = event.get("cat"), str(event.get("name", ""))
        if category in ON_DEVICE:
            spans.append((float(event["ts"]), float(event["ts"]) + float(event.get("dur", 0.0))))
            copies += category == "gpu_memcpy" and "DtoH" in name
        elif category in CALLS:
            names.append(name)
    launches, graphs, syncs = (sum(name.startswith(begin) for name in names) for begin in (LAUNCHES, GRAPHS, WAITS))
    return Trace(covered(spans) / 1e6, launches, graphs, syncs, copies)


def trace(work: Callable[[], object]) -> Trace:
    """Run a piece of work on a GPU, once to warm up and once under the profiler.

    After the first profile, the profiler slows down later launches. Take profiles after all times.

    Args:
        work: The work.

    Returns:
        Its counts, without those of the profiler itself.
    """
    work()
    return _profiled(work).less(_empty())


@cache
def _empty() -> Trace:
    return _profiled(lambda: None)


def _profiled(work: Callable[[], object]) -> Trace:
    # If CUPTI were torn down after a profile, a following profile could miss the events of the device, and CUDA graphs
    # could crash before CUDA 12.6: https://github.com/pytorch/kineto/pull/1554
    os.environ["TEARDOWN_CUPTI"], os.environ["DISABLE_CUPTI_LAZY_REINIT"] = "0", "1"
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        text = path.read_text(encoding="utf-8", errors="replace")
    return summarise(json.loads(text, strict=False)["traceEvents"])
