"""Who hangs: every rank says how far it is, and a run in which nobody moves ends with the name of the one behind."""

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

HANG_STATUS = 70  # EX_SOFTWARE


class Watchdog:
    """Inside, a thread tells the ranks' common store each few seconds what this rank does.

    Where a rank has begun no phase for `timeout` seconds it prints which ranks are behind the others, or silent, with
    their hosts, and ends the process: torchrun then ends the others, and starts anew where it was told to. Where the
    store's host is silent, which is rank 0's, that is said instead. A rank that is alone is not watched.
    """

    def __init__(self, ranks: Ranks, phases: Phases, timeout: float):
        self.ranks, self.phases, self.timeout = ranks, phases, timeout
        self.interval = min(10.0, timeout / 5)
        self._beat, self._host = 0, socket.gethostname()
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        if self.ranks.mesh is not None:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self.interval)  # no longer: a store whose host was lost may never answer it

    def _watch(self) -> None:
        store, moved, entered = _get_default_store().clone(), time.monotonic(), self.phases.entered
        while not self._stop.wait(self.interval):
            try:
                self._tell(store)
                if self.phases.entered != entered:
                    moved, entered = time.monotonic(), self.phases.entered
                elif time.monotonic() - moved > self.timeout:
                    self._end(store)
            except (RuntimeError, dist.DistError):  # the store went with its host: the collectives will say so
                return

    def _tell(self, store: dist.Store) -> None:
        self._beat += 1
        said = {"entered": self.phases.entered, "phase": self.phases.current, "beats": self._beat, "host": self._host}
        store.set(f"beat/{self.ranks.rank}", json.dumps(said))

    def _end(self, store: dist.Store) -> None:
        """Say who is behind, if nobody else does, and end this process, sooner than the collectives time out."""
        judge = threading.Thread(target=self._judge, args=(store,), daemon=True)
        judge.start()
        judge.join(4.5 * self.interval)
        if judge.is_alive() and os.environ.get("LOCAL_RANK", "0") == "0":
            said = f"no progress for {self.timeout:g} s, and the host of rank 0 does not answer"
            print(f"arkasr: rank {self.ranks.rank} on {self._host}: {said}", file=sys.stderr, flush=True)
        os._exit(HANG_STATUS)  # the main thread waits in a collective, where no exception reaches it

    def _judge(self, store: dist.Store) -> None:
        speaks = store.add("speaker", 1) == 1
        first = self._beats(store)
        for _ in range(3):  # those who still live show it meanwhile
            time.sleep(self.interval)
            self._tell(store)
        if speaks:
            said = verdict(first, self._beats(store), self.ranks.rank, self.timeout)
            print(said, file=sys.stderr, flush=True)
        else:
            time.sleep(self.interval)

    def _beats(self, store: dist.Store) -> list[dict[str, Any] | None]:
        keys = [f"beat/{rank}" for rank in range(self.ranks.world_size)]
        return [json.loads(store.get(key)) if store.check([key]) else None for key in keys]


def verdict(
    first: list[dict[str, Any] | None], later: list[dict[str, Any] | None], speaker: int, timeout: float
) -> str:
    """Name the ranks whose beats stand still between two readings, else those that have begun the fewest phases."""
    silent = [
        r
        for r, (a, b) in enumerate(zip(first, later, strict=True))
        if b is None or (a or {}).get("beats") == b["beats"]
    ]
    least = min((b["entered"] for b in later if b), default=0)
    behind = silent or [r for r, b in enumerate(later) if b and b["entered"] == least]
    said = ", ".join(_described(rank, later[rank]) for rank in behind)
    how = "silent" if silent else "behind" if len(behind) < len(later) else "all at one place"
    return f"arkasr: rank {speaker}: no progress for {timeout:g} s; {how}: {said}"


def _described(rank: int, beat: dict[str, Any] | None) -> str:
    if beat is None:
        return f"rank {rank} (never heard of)"
    return f"rank {rank} on {beat['host']} (in {beat['phase'] or 'no phase'}, the {beat['entered']}th begun)"
