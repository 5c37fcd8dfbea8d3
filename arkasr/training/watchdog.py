"""Hang detection: a thread per rank reports progress to a common store, and a stalled run ends with a diagnosis."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from arkasr.training.ranks import Ranks
from arkasr.utils.timing import Phases

HANG_STATUS = 70  # exit status, EX_SOFTWARE of sysexits.h

Beat = dict[str, Any]  # what one rank reports: entered (phases begun), phase (the current one), beats (a counter), host


class Watchdog:
    """Context manager that watches the progress of a run with several ranks.

    Inside, a thread writes the progress of this rank to the store of the process group every few seconds. If this rank
    begins no phase for `timeout` seconds, the thread prints which ranks are behind or silent, with their hosts, and
    ends the process with status `HANG_STATUS`. torchrun then ends the other ranks and restarts all of them if restarts
    are left. If the store does not answer, the message names rank 0's host, which holds it. A single process is not
    watched.

    Args:
        ranks: The processes of the run.
        phases: The timer whose phases count as progress.
        timeout: Seconds without progress after which the run ends (`train.hang_seconds`).
    """

    def __init__(self, ranks: Ranks, phases: Phases, timeout: float):
        self.ranks, self.phases, self.timeout = ranks, phases, timeout
        self.interval = min(10.0, timeout / 5)
        self._beats_sent, self._host = 0, socket.gethostname()
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        if self.ranks.mesh is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self.interval)  # no longer: a store on a lost host may never answer the thread

    def _watch(self) -> None:
        store = _get_default_store().clone()  # type: ignore[attr-defined]  # missing from the stubs of torch
        last_progress, entered = time.monotonic(), self.phases.entered
        while not self._stop.wait(self.interval):
            try:
                self._send_beat(store)
                if self.phases.entered != entered:
                    last_progress, entered = time.monotonic(), self.phases.entered
                elif time.monotonic() - last_progress > self.timeout:
                    self._end(store)
            except (RuntimeError, dist.DistError):  # the store is gone with its host: the collectives will report it
                return

    def _send_beat(self, store: dist.Store) -> None:
        self._beats_sent += 1
        beat = {
            "entered": self.phases.entered,
            "phase": self.phases.current,
            "beats": self._beats_sent,
            "host": self._host,
        }
        store.set(f"beat/{self.ranks.rank}", json.dumps(beat))

    def _end(self, store: dist.Store) -> None:
        """Report the ranks that are behind, unless another rank does, and end the process.

        This takes less time than the timeout of the collectives.
        """
        reporter = threading.Thread(target=self._report, args=(store,), daemon=True)
        reporter.start()
        reporter.join(4.5 * self.interval)
        if reporter.is_alive() and os.environ.get("LOCAL_RANK", "0") == "0":
            message = f"no progress for {self.timeout:g} s, and the host of rank 0 does not answer"
            print(f"arkasr: rank {self.ranks.rank} on {self._host}: {message}", file=sys.stderr, flush=True)
        os._exit(HANG_STATUS)  # the main thread waits in a collective, which an exception would not interrupt

    def _report(self, store: dist.Store) -> None:
        reports = store.add("reporter", 1) == 1  # the first rank that gets here prints the message
        first = self._read_beats(store)
        for _ in range(3):  # ranks that are alive send further beats in this time
            time.sleep(self.interval)
            self._send_beat(store)
        if reports:
            message = describe_hang(first, self._read_beats(store), self.ranks.rank, self.timeout)
            print(message, file=sys.stderr, flush=True)
        else:
            time.sleep(self.interval)

    def _read_beats(self, store: dist.Store) -> list[Beat | None]:
        keys = [f"beat/{rank}" for rank in range(self.ranks.world_size)]
        return [json.loads(store.get(key)) if store.check([key]) else None for key in keys]


def describe_hang(first: list[Beat | None], later: list[Beat | None], reporter: int, timeout: float) -> str:
    """Name the ranks that hold up the run: the silent ones, otherwise those that have begun the fewest phases.

    Args:
        first: The latest report of each rank, None for a rank without one.
        later: The same, read some seconds later. A rank whose counter `beats` did not change is silent.
        reporter: The rank that prints the message.
        timeout: Seconds without progress, for the message.

    Returns:
        The message, one line.
    """
    silent = [
        rank
        for rank, (before, after) in enumerate(zip(first, later, strict=True))
        if after is None or (before or {}).get("beats") == after["beats"]
    ]
    fewest = min((beat["entered"] for beat in later if beat), default=0)
    behind = silent or [rank for rank, beat in enumerate(later) if beat and beat["entered"] == fewest]
    names = ", ".join(_describe_rank(rank, later[rank]) for rank in behind)
    kind = "silent" if silent else "behind" if len(behind) < len(later) else "all ranks wait at the same point"
    return f"arkasr: rank {reporter}: no progress for {timeout:g} s; {kind}: {names}"


def _describe_rank(rank: int, beat: Beat | None) -> str:
    if beat is None:
        return f"rank {rank} (never reported)"
    return f"rank {rank} on {beat['host']} (in {beat['phase'] or 'no phase'}, phase number {beat['entered']})"
