"""End a process whose main thread cannot be interrupted."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import suppress
from typing import NoReturn

from arkasr.utils.console import printable


def end_process(status: int, message: str, verb: str = "train") -> NoReturn:
    """Print one sentence and end this process and its data loader processes at once, from any thread.

    Args:
        status: Exit status.
        message: What has happened and what to do. Empty prints nothing.
        verb: The verb of the command `arkasr`.
    """
    if message:
        rank = f" (rank {os.environ['RANK']})" if os.environ.get("RANK", "0") != "0" else ""
        with suppress(OSError):
            print(f"arkasr {verb}: error: {printable(message)}{rank}", file=sys.stderr, flush=True)
    with suppress(Exception):
        for child in multiprocessing.active_children():
            child.kill()
    os._exit(status)
