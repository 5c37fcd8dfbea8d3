"""Loading of batches, in this process or in loader processes, with an error instead of an endless wait.

Loader processes deal the batches themselves: each iterates over all of them, and loads every n-th. So the training
process neither reads manifests nor sends anything.

Waveforms travel in memory that is shared by inheritance (see `arkasr.data.shared_samples`), all else through a pipe.
torch's tensors would travel through files in /dev/shm and a socket in TMPDIR. If such a file or socket cannot be
created, the batch is lost and the training process waits for it for ever. This happens with Docker's default size of
/dev/shm, and with a path of more than 107 characters.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch, load_batch
from arkasr.data.dealing import Dealt
from arkasr.data.loader_process import prepare
from arkasr.data.shared_samples import SharedSamples, joined
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE

AHEAD = 2  # batches that each loader process has ready
SLOTS = AHEAD + 2  # per loader process: also the batch in training, and one that is written meanwhile
MOST_SECONDS = 900.0  # of audio in a slot. Larger batches go through the pipe

T = TypeVar("T")


class Loaded(NamedTuple):
    """A batch with its place in the training data.

    Attributes:
        epoch: See `Dealt`.
        read: See `Dealt`.
        batch: The batch.
    """

    epoch: int
    read: tuple[int, int]
    batch: Batch


@dataclass
class _Packed:
    """A batch on its way. samples: the samples of all clips. None: they are in the batch."""

    epoch: int
    read: tuple[int, int]
    batch: Batch
    lengths: list[int]
    samples: Any = None

    def pin_memory(self) -> _Packed:
        """Copy the samples to page-locked memory, in one piece. A thread of torch's DataLoader calls this."""
        samples = joined(self.batch.waveforms) if self.samples is None else torch.as_tensor(self.samples)
        return replace(self, samples=samples.pin_memory())

    def unpacked(self) -> Loaded:
        batch = self.batch
        if self.samples is not None:
            batch = replace(batch, waveforms=list(torch.as_tensor(self.samples).split(self.lengths)))
        return Loaded(self.epoch, self.read, batch)


class _Share(IterableDataset):
    """The batches that this process loads. An error of the user comes in place of a batch, as the last item."""

    def __init__(self, dealt: Iterable[Dealt], shared: SharedSamples | None):
        self.dealt, self.shared = dealt, shared

    def __iter__(self) -> Iterator[_Packed | UserError]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            for one in islice(self.dealt, first, None, step):
                yield self._loaded(one, first)
        except UserError as error:  # torch would wrap it into a traceback
            yield error

    def _loaded(self, one: Dealt, loader: int) -> _Packed:
        batch = load_batch([clip.cut() for clip in one.clips])
        packed = _Packed(one.epoch, one.read, batch, [len(waveform) for waveform in batch.waveforms])
        if self.shared is None:
            return packed
        samples = self.shared.write(loader, batch.waveforms)
        return replace(packed, samples=samples, batch=replace(batch, waveforms=[]))


def loaded(dealt: Iterable[Dealt], config: DataConfig, timeout: float, pin: bool = False) -> Iterator[Loaded]:
    """Load batches in order.

    Args:
        dealt: The clips of each batch. Each loader process iterates over all of it, in a copy of its own.
        config: The section `data`. `num_workers` is the number of loader processes. 0 loads in this process.
        timeout: Seconds to wait for one batch of the loader processes. 0 sets no limit.
        pin: Put the waveforms of each batch into one piece of page-locked memory, from which a GPU can copy
            asynchronously. Needs a GPU.

    Yields:
        The batches.

    Raises:
        UserError: The clips cannot be dealt, the loader processes cannot start, or they do not deliver the batch in
            time.
        RuntimeError: A loader process died (torch's message names it).
    """
    try:
        loader = _loader(dealt, config, timeout, pin)
    except OSError as error:
        raise UserError(
            f"data.num_workers={config.num_workers}: loader processes cannot start ({error}); free space in /dev/shm "
            "or start the container with a larger --shm-size, raise the limits of open files and processes (ulimit "
            "-n, ulimit -u), or set data.num_workers=0"
        ) from error
    while (packed := _next(loader, config.num_workers, timeout)) is not None:
        if isinstance(packed, UserError):
            raise packed
        yield packed.unpacked()


def _loader(dealt: Iterable[Dealt], config: DataConfig, timeout: float, pin: bool) -> Iterator[_Packed | UserError]:
    workers = config.num_workers
    _try_queues(workers)
    seconds = min(config.max_seconds, config.max_cuts * config.max_clip_seconds, MOST_SECONDS)
    size = int((seconds + 1) * SAMPLE_RATE)  # lengths are rounded to whole samples
    shared = SharedSamples(workers, SLOTS, size) if workers else None
    # loader processes inherit the manifest and the shared memory, so they must be forked
    options: dict[str, Any] = {"multiprocessing_context": "fork", "prefetch_factor": AHEAD, "timeout": timeout}
    return iter(
        DataLoader(
            _Share(dealt, shared),
            batch_size=None,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=prepare,
            pin_memory=pin,
            generator=torch.Generator(),  # separate, so that loading does not change the global generator
            **(options if workers else {}),
        )
    )


def _unchanged(value: T) -> T:
    return value


def _try_queues(num_workers: int) -> None:
    """Create the queues and the event that a DataLoader needs, and discard them.

    Raises OSError if they cannot be created. A DataLoader would print a traceback about its own deletion beside it.
    """
    if num_workers:
        context = multiprocessing.get_context("fork")
        kept = [context.Event(), *(context.Queue() for _ in range(num_workers + 1))]
        kept.clear()


def _next(loader: Iterator[T], num_workers: int, timeout: float) -> T | None:
    try:
        return next(loader, None)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader timed out"):
            raise
        raise UserError(
            f"data.num_workers={num_workers}: the loader processes delivered no batch in {timeout:g} s; check that "
            "the file systems of the manifest and of the audio answer, and that memory and /dev/shm are not full (df "
            "/dev/shm; a container gets more with --shm-size), set data.num_workers=0 to see the error itself, or "
            "raise train.hang_seconds"
        ) from error
