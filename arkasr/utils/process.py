"""The environment of a process: its user, its launcher, and output that never fails on a character."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import pwd
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLOSED_OUTPUT = 141  # exit status of a shell's commands whose reader has ended (128 + SIGPIPE)
PR_SET_PDEATHSIG = 1  # prctl(2)
RECIPE = "ARKASR_RECIPE"  # the command line of run.sh
USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")  # in the order in which Python's getpass reads them


def prepare_process() -> None:
    """Set what the libraries of arkasr need from the environment, and make every text printable.

    A container may run as a user id without an entry in /etc/passwd. torch asks for the name of the user, and others
    ask for the home folder. Both would fail with a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the locale may lack a character of a transcript
    if recipe := os.environ.get(RECIPE):  # files of results quote it, in UTF-8
        os.environ[RECIPE] = recipe.encode("utf-8", "backslashreplace").decode()
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not any(os.environ.get(name) for name in USER_VARIABLES):
            os.environ["USER"] = f"uid{os.getuid()}"
        if not os.environ.get("HOME"):
            os.environ["HOME"] = str(_own_folder())


@contextmanager
def importing() -> Iterator[None]:
    """Import large packages without searches for garbage meanwhile.

    Packages last as long as the process, so what exists after the imports is left out of all later searches too, also
    of the one at its end. Both together take a third of the time of a process that does nothing else.
    """
    before, searching = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if searching:
            gc.enable()


def end_with_parent(parent: int) -> None:
    """Ask the kernel to send SIGTERM to this process when its parent dies (Linux only).

    Args:
        parent: Process id of the parent. If it has died already, this process ends now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)


def end_with_launcher() -> None:
    """Ask the kernel to send SIGTERM to this process when torchrun, its parent, dies (Linux only).

    Otherwise a rank would continue after its torchrun was killed, and write to the directory of the next launch.
    A process that was started by hand is not affected, because its shell may exit earlier.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(os.getppid())


def output_is_closed() -> bool:
    """Return whether the reader of standard output has ended, as in `arkasr plugins | head -n 1`.

    If so, further output goes to /dev/null, so that Python does not fail once more when it exits.
    """
    try:
        number = sys.stdout.fileno()
    except OSError:  # a replacement of standard output without a file
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
    return True


def _own_folder() -> Path:
    """Return a folder under TMPDIR that only this user can write to. Caches in it stay for the next process."""
    folder = Path(tempfile.gettempdir()) / f"arkasr-uid{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError
    except OSError:  # someone else made it
        return Path(tempfile.mkdtemp(prefix="arkasr-"))
    return folder
