"""Ranks that are copies of the test's process."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from arkasr.errors import UserError


def free_port() -> int:
    """Return a port of this machine that no process uses."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def copied(function: Callable[[], None], output: Path, variables: Mapping[str, str] | None = None) -> int:
    """Run a function in a copy of this process, with more environment variables. Return the process id.

    It prints to the file `output`, and ends as the command line does: with the status of SystemExit, or 2 for an error.
    """
    pid = os.fork()
    if pid == 0:
        os.environ.update(variables or {})
        _run(function, output)
    return pid


def _run(function: Callable[[], None], output: Path) -> NoReturn:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
    status = 0
    try:
        function()
    except SystemExit as end:
        status = end.code
    except BaseException as error:
        print(f"error of rank {os.environ.get('RANK', 0)}: {type(error).__name__}: {error}")
        if not isinstance(error, (UserError, OSError)):
            traceback.print_exc()
        status = 2
    sys.stdout.flush()
    os._exit(status)


def status_of(pid: int) -> int:
    """Wait for a copy, and return its exit status, -N if the signal N killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Forked:
    """Ranks that are copies of this process, which saves the time of starting Python. As torchrun, but no restarts."""

    def __init__(
        self, number: int, function: Callable[[], None], output: Path, ranks: Iterable[int] = (), **changes: object
    ):
        """Start the ranks, all of them if `ranks` names none. `changes` are of their environment."""
        env = {"WORLD_SIZE": number, "MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "none"}
        env |= {"LOCAL_WORLD_SIZE": number, "CUDA_VISIBLE_DEVICES": "", "MASTER_PORT": free_port(), **changes}
        self.output, self.pids = output, []
        for rank in ranks or range(number):
            variables = {name: str(value) for name, value in (env | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            self.pids.append(copied(function, output, variables))

    def wait(self) -> list[int]:
        """Return the exit status of each rank."""
        return [status_of(pid) for pid in self.pids]

    def succeed(self) -> None:
        """Wait for all ranks. Fails with their output unless each has the exit status 0."""
        assert self.wait() == [0] * len(self.pids), self.output.read_text()
