"""Loading of batches, in this process or in loader processes, with an error instead of an endless wait.

Loader processes send waveforms through a pipe, as numpy arrays. torch's tensors would travel through files in /dev/shm
and a socket in TMPDIR. If such a file or socket cannot be created, the batch is lost and the training process waits for
it for ever. This happens with Docker's default size of /dev/shm, and with a path of more than 107 characters.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from lhotse.cut import Cut
from torch.utils.data import DataLoader, Dataset, get_worker_info

from arkasr.data.batches import Batch, load_batch
from arkasr.errors import UserError


def _ignore_signals(worker: int) -> None:
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


class _ClipDataset(Dataset):
    """Loads one batch. In torch's map-style protocol the index is the list of the batch's cuts."""

    def __getitem__(self, cuts: list[Cut]) -> Batch:
        batch = load_batch(cuts)
        if get_worker_info() is not None:
            arrays: list[Any] = [waveform.numpy() for waveform in batch.waveforms]
            batch = replace(batch, waveforms=arrays)
        return batch

    def __len__(self) -> int:
        raise TypeError("the number of batches is not known in advance")


def loaded(cuts: Iterable[list[Cut]], num_workers: int, timeout: float) -> Iterator[Batch]:
    """Load batches in order.

    Args:
        cuts: The cuts of each batch. With loader processes, it is iterated ahead of the batches returned.
        num_workers: Number of loader processes (`data.num_workers`). 0 loads in this process.
        timeout: Seconds to wait for one batch of the loader processes. 0 sets no limit.

    Yields:
        The batches.

    Raises:
        UserError: The loader processes cannot start, or do not deliver the batch in time.
        RuntimeError: A loader process died (torch's message names it).
    """
    try:
        _try_queues(num_workers)
        loader = iter(
            DataLoader(
                _ClipDataset(),
                sampler=cuts,
                batch_size=None,
                num_workers=num_workers,
                collate_fn=None,
                worker_init_fn=_ignore_signals,
                timeout=timeout if num_workers else 0,
                generator=torch.Generator(),  # separate, so that loading does not change the global generator
            )
        )
    except OSError as error:
        raise UserError(
            f"data.num_workers={num_workers}: loader processes cannot start ({error}); free space in /dev/shm or start "
            "the container with a larger --shm-size, raise the limits of open files and processes (ulimit -n, "
            "ulimit -u), or set data.num_workers=0"
        ) from error
    while (batch := _next(loader, num_workers, timeout)) is not None:
        yield replace(batch, waveforms=[torch.as_tensor(waveform) for waveform in batch.waveforms])


def _try_queues(num_workers: int) -> None:
    """Create the queues and the event that a DataLoader needs, and discard them.

    Raises OSError if they cannot be created. A DataLoader would print a traceback about its own deletion beside it.
    """
    if num_workers:
        context = multiprocessing.get_context()
        kept = [context.Event(), *(context.Queue() for _ in range(num_workers + 1))]
        kept.clear()


def _next(loader: Iterator[Batch], num_workers: int, timeout: float) -> Batch | None:
    try:
        return next(loader, None)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader timed out"):
            raise
        raise UserError(
            f"data.num_workers={num_workers}: the loader processes delivered no batch in {timeout:g} s; check that "
            "the audio's file system answers, and that memory and /dev/shm are not full (df /dev/shm; a container gets "
            "more with --shm-size), set data.num_workers=0 to see the error itself, or raise train.hang_seconds"
        ) from error
