"""Processes that run the tasks of a sweep: their environment, their logs, and why they failed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from arkasr.utils.process import RECIPE, end_with_parent

_ERROR = re.compile(r"arkasr(?: \w+)?: (?:error: )?(.*)")
TAIL_BYTES = 20_000
MOST_LETTERS = 500  # of a cause


class Running(Protocol):
    """A task that runs."""

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""

    def stop(self, kill: bool) -> None:
        """Have it save and end.

        Args:
            kill: Kill it instead.
        """


class Process:
    """The commands of one task, one after the other, with their output in a log file.

    Args:
        commands: Words after `arkasr`.
        log: The file. Output is appended.
        environment: Environment of the processes.
        arkasr: Words that start `arkasr`.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        log: Path,
        environment: Mapping[str, str],
        arkasr: Sequence[str] = (sys.executable, "-m", "arkasr"),
    ):
        self.left = [[*arkasr, *words] for words in commands]
        self.log, self.environment, self.stopped = log, environment, False
        log.parent.mkdir(parents=True, exist_ok=True)
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        words, parent = self.left.pop(0), os.getpid()
        with self.log.open("ab") as file:
            file.write(f"\n$ {shlex.join(words)}\n".encode())
            file.flush()
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # Ctrl-C reaches the sweep only, which has its tasks save and end
                preexec_fn=lambda: end_with_parent(parent),
            )

    def poll(self) -> int | None:
        """Start the next command if one has ended well.

        Returns:
            Exit status of the last command, None while one runs. Negative: number of the signal that ended it.
        """
        status = self.process.poll()
        if status == 0 and self.left and not self.stopped:
            self.process = self._start()
            return None
        return status

    def stop(self, kill: bool) -> None:
        """Have the command save and end.

        Args:
            kill: Kill it instead.
        """
        self.stopped = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)


def environment(slot: int, jobs: int, gpus: Sequence[str], command: str) -> dict[str, str]:
    """Return the environment of one of several tasks that run at once.

    Args:
        slot: Index of the task among those that run.
        jobs: Largest number of tasks that run at once.
        gpus: Names of the GPUs that the sweep may use. Each task gets one, in turn.
        command: Command line of the sweep, which results quote.

    Returns:
        The environment of this process, with one GPU, and its share of the CPU cores if several tasks run at once.
    """
    found = {**os.environ, RECIPE: command}
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    if jobs > 1:
        found.setdefault("OMP_NUM_THREADS", str(max(len(os.sched_getaffinity(0)) // jobs, 1)))
    return found


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use.

    Returns:
        The words of CUDA_VISIBLE_DEVICES, else indices of all GPUs.
    """
    if (names := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in names.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def cause(log: Path, status: int) -> str:
    """Return why a task failed.

    Args:
        log: Its log file.
        status: Exit status, negative for a signal.

    Returns:
        The last error message of `arkasr`, else the last line of the log, or the signal.
    """
    if status < 0:
        return f"killed by {signal.Signals(-status).name}; see {log}"
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - TAIL_BYTES, 0))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    lines = lines[max((number for number, line in enumerate(lines) if line.startswith("$ ")), default=0) :]
    errors = [found[1] for line in lines if (found := _ERROR.fullmatch(line))]
    text = errors[-1] if errors else lines[-1] if len(lines) > 1 else "no output"
    return text[:MOST_LETTERS] + ("" if errors else f" (exit status {status}, see {log})")
