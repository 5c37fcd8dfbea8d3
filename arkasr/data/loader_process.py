"""What a loader process does before it loads batches: it saves memory, reports once, and ends with its parent."""

from __future__ import annotations

import gc
import os
import signal
import threading

from arkasr.utils.console import log_on_every_rank_only


def prepare(worker: int) -> None:
    """Prepare a loader process, as the first thing it does.

    Args:
        worker: Its number, from 0.
    """
    gc.freeze()  # else the collector would write to all inherited objects, and so copy their memory
    if worker:  # all loader processes read the same lines of the manifest. One reports on them
        log_on_every_rank_only()
    _ignore_signals()


def _ignore_signals() -> None:
    """Make a loader process ignore signals that schedulers and terminals send to all processes.

    Only the training process ends its loaders.
    """
    for each in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit on a SIGTERM from the training process, which sends one when it exits."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
