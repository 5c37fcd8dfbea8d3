"""Work on many speakers at once, in an order that does not depend on the number of processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from arkasr.utils.process import end_with_parent

T = TypeVar("T")


def in_processes(work: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Call a function for each job, with one process per CPU core.

    Args:
        work: A function of a module.
        jobs: Its arguments.

    Yields:
        The results, in the order of the jobs. Few are computed ahead, so that they fit into memory.
    """
    left, width = iter(jobs), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if width == 1:
        yield from (work(*job) for job in left)
        return
    context = multiprocessing.get_context("fork")  # a new interpreter would import torch again
    with ProcessPoolExecutor(width, context, _begin_worker, (os.getpid(),)) as pool:
        try:
            running: deque[Future[T]] = deque(pool.submit(work, *job) for job in islice(left, width + 1))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(work, *job) for job in islice(left, 1))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error nobody needs the other results


def _begin_worker(parent: int) -> None:
    """End with the parent, also if it is killed. Ctrl-C reaches all processes, and the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(parent)
