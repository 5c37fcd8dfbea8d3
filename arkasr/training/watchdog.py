"""Hang detection: a thread per rank watches its progress, and a stalled run ends with a diagnosis."""

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
from arkasr.utils.ending import end_process
from arkasr.utils.timing import Phases

HANG_STATUS = 70  # exit status, EX_SOFTWARE of sysexits.h

Beat = dict[str, Any]  # what one rank reports: entered (phases begun), phase (the current one), beats (a counter), host


REMEDIES = {  # what to do about a hang, by phase
    "data": "check the audio's file system and the space in /dev/shm, lower data.num_workers (0 loads in this process)",
    "teacher": "check that the teacher answers",
    "save": "check the file system of --expdir",
}


class Watchdog:
    """Context manager that watches the run's progress.

    If this rank begins no phase for `timeout` seconds, a thread ends the process with status `HANG_STATUS` and one
    sentence. With several ranks, the threads write the progress of each rank to the store of the process group every
    few seconds, and the message names the ranks that are behind or silent, with their hosts. torchrun then ends the
    other ranks and restarts all of them if restarts are left. If the store does not answer, the message names rank 0's
    host, which holds it. A single rank names its phase and what to do.

    Time in which the process itself is stopped does not count.

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
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(self.interval)  # no longer: a store on a lost host may never answer the thread

    def _watch(self) -> None:
        several = self.ranks.mesh is not None
        store = _get_default_store().clone() if several else None  # type: ignore[attr-defined]  # missing from the stubs
        idle, entered, last = 0.0, self.phases.entered, time.monotonic()
        while not self._stop.wait(self.interval):
            now = time.monotonic()
            idle, last = idle + min(now - last, 2 * self.interval), now
            try:
                if store is not None:
                    self._send_beat(store)
                if self.phases.entered != entered:
                    idle, entered = 0.0, self.phases.entered
                elif idle > self.timeout:
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

    def _end(self, store: dist.Store | None) -> None:
        """Report the ranks that are behind, unless another rank does, and end the process.

        This takes less time than the timeout of the collectives. An exception would not interrupt the main thread.
        """
        if store is None:
            end_process(HANG_STATUS, describe_lone_hang(self.phases.current, self.timeout))
        reporter = threading.Thread(target=self._report, args=(store,), daemon=True)
        reporter.start()
        reporter.join(4.5 * self.interval)
        silent = reporter.is_alive() and os.environ.get("LOCAL_RANK", "0") == "0"
        message = f"no progress for {self.timeout:g} s on {self._host}, and the host of rank 0 does not answer"
        end_process(HANG_STATUS, message if silent else "")

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


def describe_lone_hang(phase: str, timeout: float) -> str:
    """Say where a run with one rank hangs and what to do.

    Args:
        phase: Name of the current phase.
        timeout: Seconds without progress.

    Returns:
        The message, one sentence.
    """
    remedy = f"{REMEDIES[phase]}, and " if phase in REMEDIES else ""
    return (
        f"no progress for {timeout:g} s in phase {phase or 'start'}; {remedy}run the same command again to resume "
        "from the last checkpoint; raise train.hang_seconds if the phase only takes long"
    )


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
