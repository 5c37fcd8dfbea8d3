"""The processes of stages 2 and 4: the ranks that torchrun started, or a single process.

Ranks transcribe independently, without collectives. Rank 0 holds the locks, takes decisions and merges files. The ranks
exchange short messages through torch's store (see `arkasr.evaluation.messages`), among them the request to end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed as dist

from arkasr.errors import UserError
from arkasr.evaluation.launch_notes import FAILED, STOPPED, launch_name, note, start
from arkasr.evaluation.messages import LOST, POLL_SECONDS, Messages
from arkasr.evaluation.monitor import Monitor
from arkasr.utils.console import log
from arkasr.utils.files import locked
from arkasr.utils.process import end_with_launcher
from arkasr.utils.rendezvous import meet

MEETING_SECONDS = 3600.0  # until all ranks have started
ERROR_SECONDS = 5.0  # in which the other ranks can notice the error of a rank, before rank 0 ends
RESTART = 75  # exit status of ranks that end because another one was restarted


class Workers(Messages):
    """A context manager of the processes of one command. All ranks run the same code in it.

    - If a rank raises an error, all ranks end. Only this error is printed.
    - SIGUSR1 at any rank ends all ranks after their present batch, with status 0 under torchrun.
    - If torchrun restarts the ranks of another machine, all ranks end, so that torchrun restarts them too.

    Args:
        expdir: Experiment directory, see `launch_notes`.
        verb: The verb of the command, for messages.
    """

    def __init__(self, expdir: Path, verb: str):
        super().__init__()
        self.expdir, self.verb = expdir, verb
        self._signalled, self._ends, self._seconds = False, "", 0.0

    def __enter__(self) -> Workers:
        end_with_launcher()
        self._handler = signal.signal(signal.SIGUSR1, self._note_signal)
        self._store = self._join()
        self._monitor = Monitor(self._store, self.rank, self.world_size, self.verb)
        self._monitor.start()
        self._launch = launch_name()
        if self.first and not start(self.expdir, self._launch):
            self._ask_to_end("error")
        try:
            self._launch = self.decide(lambda: self._launch)
        except SystemExit:
            self._leave(ERROR_SECONDS)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._monitor.stop()
        signal.signal(signal.SIGUSR1, self._handler)
        if error is None or self._ends == "signal":
            self._leave(MEETING_SECONDS)
        elif isinstance(error, SystemExit):
            if self._ends:
                self._leave(ERROR_SECONDS)
        else:
            reported = self._ask_to_end("error")
            self._leave(ERROR_SECONDS)
            if not reported:
                raise SystemExit(LOST) from None  # another rank prints its error
            if isinstance(error, (UserError, OSError)):
                note(self.expdir, FAILED, self._launch)

    def _note_signal(self, *_: object) -> None:
        self._signalled = True

    def _join(self) -> dist.Store:
        """Meet the other ranks. Torchrun counts the restarts of each machine: an old store is left to its ranks."""
        if self.world_size == 1:
            return dist.HashStore()
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        while True:
            self._store = meet(self.rank, self.world_size, MEETING_SECONDS)
            with self._answered():
                if self.first:
                    self._store.set("restarts", str(restarts))
                if restarts <= int(self._store.get("restarts")):
                    return self._store
                with suppress(SystemExit):
                    self._ask_to_end("restart")
            time.sleep(1.0)

    def _ask_to_end(self, reason: str) -> bool:
        """Ask all ranks to end. Return whether this is the first request, whose reason counts."""
        with self._answered():
            first = self._store.add("end", 1) == 1
            if first:
                self._store.set("reason", reason)
            return first

    def check(self) -> None:
        """Note progress, and end this rank if a rank has asked for it.

        Raises:
            SystemExit: This rank has to end.
        """
        self._monitor.progress += 1
        if self._signalled:
            self._ask_to_end("signal")
        with self._answered():
            if not self._store.add("end", 0):
                return
            self._ends = self._store.get("reason").decode()
        if self._ends == "signal" and self.first:
            note(self.expdir, STOPPED, self._launch)
            log(f"{self.verb}: stopped by a signal; finished clips are kept, run the same command again to resume")
        elif self._ends == "restart" and self.first:
            log(f"{self.verb}: ranks of another machine were restarted; all ranks start again, finished clips are kept")
        stopped = 0 if self._launch else 128 + signal.SIGUSR1
        raise SystemExit({"signal": stopped, "restart": RESTART}.get(self._ends, LOST))

    def _leave(self, seconds: float) -> None:
        """On rank 0, wait until the others need the store no more, at most for some seconds."""
        end = time.monotonic() + seconds
        with self._answered():
            self._monitor.leave()
            self._store.add("left", 1)
            while self.first and self._store.add("left", 0) < self.world_size and time.monotonic() < end:
                time.sleep(POLL_SECONDS[0])

    def watched(self, seconds: float) -> Any:
        """Return a context manager in which a rank without progress, or without a sign of life, ends the process.

        Args:
            seconds: Seconds without a call of `check`.

        Returns:
            The context manager.
        """
        self._seconds = seconds
        return self._monitor.watching(seconds)

    def collect(self, value: Any, each: Callable[[], None] = lambda: None) -> list[Any]:
        """See `Messages.collect`. Rank 0 ends if a rank is silent for the seconds of the last `watched`."""
        with self._monitor.watching(self._seconds):
            return super().collect(value, each)

    @contextmanager
    def locked(self, folder: Path, action: str) -> Iterator[None]:
        """Hold the lock of a folder on rank 0 while all ranks run the body.

        Args:
            folder: See `arkasr.utils.files.locked`.
            action: See there.

        Yields:
            None.

        Raises:
            UserError: Another command holds the lock.
        """
        with locked(folder, action) if self.first else nullcontext():
            self.decide(lambda: None)
            yield
