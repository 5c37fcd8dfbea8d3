"""Run the tasks of a sweep, beside any number of other processes that do the same in the same folder.

A process holds the lock of a task while it runs it. Which tasks are done is read from the results themselves, so a
sweep that was killed resumes. A task that fails is not tried again by processes that had begun before. It blocks only
the tasks that need it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from arkasr.errors import UserError
from arkasr.sweeps.plan import Plan
from arkasr.sweeps.processes import Running, cause
from arkasr.sweeps.tasks import Task
from arkasr.utils.console import log
from arkasr.utils.files import locked, write_text

STATE = ".sweep"  # folder of locks, failures and the record of the sweep
POLL_SECONDS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
Launch = Callable[[Task, Path, int], Running]  # task, log file, and index among the tasks that run at once


@dataclass
class _Active:
    task: Task
    running: Running
    log: Path
    slot: int
    held: ExitStack
    since: float = field(default_factory=time.monotonic)


class Runner:
    """Run tasks until all are done, have failed, or are blocked.

    Args:
        plan: All tasks of the sweep.
        names: Names of the tasks that this process works on, in order.
        expdir: Folder of the sweep.
        jobs: Largest number of tasks that run at once in this process.
        launch: Starts a task.

    Attributes:
        failed: Cause by name of the tasks that failed, here or in another process since this one has begun.
        stopped: Whether a signal asked to stop.
    """

    def __init__(self, plan: Plan, names: Sequence[str], expdir: Path, jobs: int, launch: Launch):
        self.plan, self.names, self.expdir, self.jobs, self.launch = plan, list(names), expdir, jobs, launch
        self.failed: dict[str, str] = {}
        self.stopped = False
        self._active: list[_Active] = []
        self._done: set[str] = set()
        self._over: set[str] = set()  # failed or blocked
        self._waited_for: set[str] = set()
        # Times of files on one file system are compared, because clocks of machines differ.
        stamp = expdir / STATE / "processes" / f"{socket.gethostname()}-{os.getpid()}"
        write_text(stamp, "")
        self._began = stamp.stat().st_mtime_ns
        stamp.unlink()

    def run(self) -> None:
        """Run the tasks. Signals have the running ones save and end, and no further one is started."""
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            while self._advance():
                time.sleep(POLL_SECONDS)
        finally:
            for one in self._active:
                one.running.stop(kill=True)
                one.held.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def is_done(self, name: str) -> bool:
        """Return whether the results of a task are there.

        Args:
            name: Name of the task.

        Returns:
            True if so. A task that was done once is not looked at again. Scoring is not done as long as a run can still
            be trained.
        """
        task = self.plan.tasks[name]
        if name not in self._done and self._is_settled(task.after) and task.is_done(self.expdir):
            self._done.add(name)
        return name in self._done

    def _is_settled(self, names: Sequence[str]) -> bool:
        """Return whether tasks are done, or cannot be done."""
        return all(name in self._over or self.is_done(name) for name in names)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        for one in self._active:
            one.running.stop(kill=self.stopped)  # a second signal kills
        self.stopped = True

    def _advance(self) -> bool:
        """Look after running tasks, and start others. Return whether there is something to wait for."""
        for one in [each for each in self._active if each.running.poll() is not None]:
            self._finish(one)
        ready = [] if self.stopped else self._ready()
        for name in ready:
            if len(self._active) >= self.jobs:
                break
            self._start(name)
        return bool(self._active or ready)  # tasks that are ready and do not run are those of other processes

    def _ready(self) -> list[str]:
        """Return the tasks that can start: what they need is done, and they neither run nor are done or failed."""
        self._read_failures()
        self._over = {*self.failed, *self.plan.blocked(self.failed)}
        left = {*self.names} - {one.task.name for one in self._active} - self._over
        return [name for name in self.names if name in left and not self.is_done(name) and self._may_start(name)]

    def _may_start(self, name: str) -> bool:
        task = self.plan.tasks[name]
        return all(map(self.is_done, task.needs)) and self._is_settled(task.after)

    def _start(self, name: str) -> None:
        """Start a task, unless another process runs it."""
        task, held = self.plan.tasks[name], ExitStack()
        try:
            held.enter_context(locked(self.expdir / STATE / "locks" / name, f"the sweep's task {name}"))
            for folder in task.locked_folders(self.expdir):
                with locked(folder, "a sweep"):
                    pass  # free: no command of a killed sweep saves its work there
        except UserError as error:
            held.close()
            if name not in self._waited_for:
                log(f"{name}: waiting for another process ({str(error).partition(': ')[2].partition(' is using')[0]})")
                self._waited_for.add(name)
            return
        if self.is_done(name):  # another process has just finished it
            held.close()
            return
        path = task.folder(self.expdir) / "log" / f"{task.step}.log"
        slot = min({*range(self.jobs)} - {one.slot for one in self._active})
        log(f"{name}: started, log in {path}")
        try:
            task.prepare(self.expdir)
            self._active.append(_Active(task, self.launch(task, path, slot), path, slot, held))
        except (OSError, UserError) as error:
            self._fail(name, str(error))
            held.close()

    def _finish(self, one: _Active) -> None:
        """Note how a task has ended."""
        self._active.remove(one)
        name, status = one.task.name, one.running.poll() or 0
        seconds = time.monotonic() - one.since
        if status == 0 and self.is_done(name):
            self._failure(name).unlink(missing_ok=True)
            log(f"{name}: done in {seconds:.0f} s")
        elif self.stopped:
            log(f"{name}: stopped, its work is kept")
        else:
            reason = cause(one.log, status) if status else f"ended without its result; see {one.log}"
            self._fail(name, reason)
        one.held.close()

    def _failure(self, name: str) -> Path:
        return self.expdir / STATE / "failed" / f"{name}.json"

    def _fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        write_text(self._failure(name), json.dumps({"cause": reason}, ensure_ascii=False) + "\n")
        log(f"{name}: failed: {reason}")

    def _read_failures(self) -> None:
        """Read what other processes noted since this one has begun."""
        for name in (each for each in self.names if each not in self._done):
            path = self._failure(name)
            try:
                if name not in self.failed and path.stat().st_mtime_ns >= self._began:
                    self.failed[name] = str(json.loads(path.read_text(encoding="utf-8"))["cause"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # none, or one that another process writes just now
