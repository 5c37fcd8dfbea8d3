"""Hang detection of stages 2 and 4: a thread per rank, which ends the process so that torchrun restarts it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from arkasr.utils.ending import end_process

HANG_STATUS = 70  # exit status, EX_SOFTWARE of sysexits.h
LONGEST_INTERVAL = 10.0  # seconds
LEFT = -1  # in place of the number of beats of a rank that has finished
_AGAIN = "run the same command again: finished clips are kept; raise train.hang_seconds if a batch only takes long"


class Monitor:
    """Watches the progress of this rank. On rank 0 it also watches whether the other ranks are alive.

    Time in which the process itself is stopped does not count.

    Args:
        store: The store of the ranks.
        rank: Number of this rank.
        world_size: Number of ranks.
        verb: The verb of the command, for messages.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, verb: str):
        self.store, self.rank, self.world_size, self.verb = store, rank, world_size, verb
        self.timeout = 0.0  # 0: nothing is watched
        self.progress = 0
        self._host, self._beats = socket.gethostname(), 0
        self._idle: dict[int, float] = {}
        self._last: dict[int, object] = {}
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Does not wait for a store that does not answer."""
        self._stop.set()
        self._thread.join(2.0)

    def leave(self) -> None:
        """Tell rank 0 that this rank has finished and will be silent. Called after `stop`."""
        self.store.set(f"beat/{self.rank}", json.dumps([LEFT, self._host]))

    @contextmanager
    def watching(self, timeout: float) -> Iterator[None]:
        """Watch while the body runs.

        Args:
            timeout: Seconds without progress, or without a sign of life of another rank, after which the process ends.

        Yields:
            None.
        """
        self.progress, self.timeout = self.progress + 1, timeout
        try:
            yield
        finally:
            self.timeout = 0.0

    def _watch(self) -> None:
        store = self.store.clone()  # type: ignore[attr-defined]  # missing from the stubs; has its own connection
        now = time.monotonic()
        interval = LONGEST_INTERVAL
        try:
            while not self._stop.wait(interval):
                timeout, before, now = self.timeout, now, time.monotonic()
                interval = min(LONGEST_INTERVAL, timeout / 5) if timeout else min(LONGEST_INTERVAL, 1.0)
                self._beat(store)
                if timeout:
                    self._check(store, timeout, min(now - before, 2 * interval))
                else:
                    self._last.clear()
        except (RuntimeError, dist.DistError):
            return  # rank 0 is gone, which the main thread notices too

    def _beat(self, store: dist.Store) -> None:
        self._beats += 1
        store.set(f"beat/{self.rank}", json.dumps([self._beats, self._host]))

    def _check(self, store: dist.Store, timeout: float, passed: float) -> None:
        if self._unchanged(self.rank, self.progress, passed) > timeout:
            where = "check that the teacher and the file system of the audio answer"
            end_process(HANG_STATUS, f"no progress for {timeout:g} s; {where}; {_AGAIN}", self.verb)
        for rank in range(1, self.world_size if self.rank == 0 else 1):
            beat = json.loads(store.get(f"beat/{rank}")) if store.check([f"beat/{rank}"]) else [0, "an unknown host"]
            if beat[0] != LEFT and self._unchanged(rank, beat[0], passed) > timeout:
                message = f"rank {rank} on {beat[1]} has been silent for {timeout:g} s; check that host; {_AGAIN}"
                end_process(HANG_STATUS, message, self.verb)

    def _unchanged(self, rank: int, value: object, passed: float) -> float:
        """Return the seconds since the value of a rank last changed."""
        same = rank in self._last and self._last[rank] == value
        self._idle[rank] = self._idle.get(rank, 0.0) + passed if same else 0.0
        self._last[rank] = value
        return self._idle[rank]
