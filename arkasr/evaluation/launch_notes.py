"""Notes of one launch in the experiment directory, for its restarts and for the script that started it.

torchrun restarts ranks after any failure, also after one that would only repeat. `.arkasr.failed` names the launch that
ended with an error of the user, so that its restarts end without a second message. `.arkasr.stopped` exists if a signal
ended the last command before its work was finished. The recipe reads it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

FAILED, STOPPED = ".arkasr.failed", ".arkasr.stopped"


def launch_name() -> str:
    """Return what identifies the torchrun that started this process.

    Returns:
        Its host, process id and start time. All its restarts have the same. Empty without torchrun.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    parent, started = os.getppid(), ""
    with suppress(OSError):  # not on Linux
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{socket.gethostname()} {parent} {started}"


def start(expdir: Path, launch: str) -> bool:
    """Delete the notes of earlier launches.

    Args:
        expdir: Experiment directory.
        launch: See `launch_name`.

    Returns:
        False if this is a restart after an error that would repeat.
    """
    failed = expdir / FAILED
    if launch and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0:
        with suppress(OSError):
            if failed.read_text(encoding="utf-8") == launch:
                return False
    for path in (failed, expdir / STOPPED):
        path.unlink(missing_ok=True)
    return True


def note(expdir: Path, name: str, launch: str) -> None:
    """Write a note, if the experiment directory exists and can be written to.

    Args:
        expdir: Experiment directory.
        name: `FAILED` or `STOPPED`.
        launch: See `launch_name`.
    """
    with suppress(OSError):
        (expdir / name).write_text(launch, encoding="utf-8")
