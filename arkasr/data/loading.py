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
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
CHECK_S = 5.0  # interval at which a wait looks for dead loader processes. Torch's signal handler finds most at once
MOST_SECONDS = 3600.0  # of audio in a slot. Larger batches go through the pipe

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


@dataclass
class _End:
    """The end of the batches, which every loader process sends. number: of all batches, since torch skips lost ones."""

    number: int = 0
    error: UserError | None = None  # torch would wrap it into a traceback


class _Share(IterableDataset):
    """The batches that this process loads, and a last item with the reason why they ended."""

    def __init__(self, dealt: Iterable[Dealt], shared: SharedSamples | None):
        self.dealt, self.shared = dealt, shared

    def __iter__(self) -> Iterator[_Packed | _End]:
        worker = get_worker_info()
        loader, loaders = (worker.id, worker.num_workers) if worker else (0, 1)
        end = _End()
        try:
            for end.number, one in enumerate(self.dealt, 1):
                if (end.number - 1) % loaders == loader:
                    yield self._packed(one, loader)
        except UserError as error:
            end.error = error
        yield end

    def _packed(self, one: Dealt, loader: int) -> _Packed:
        originals = [clip for clip in one.clips if "_dup" not in clip.suffix]
        drawn = sum(clip.seconds for clip in originals)
        covered = sum(clip.seconds * clip.speed for clip in originals)
        batch = load_batch([clip.cut() for clip in one.clips], [clip.speed for clip in one.clips])
        batch = replace(batch, drawn=drawn, covered=covered)
        packed = _Packed(one.epoch, one.read, batch, [len(waveform) for waveform in batch.waveforms])
        if self.shared is None:
            return packed
        samples = self.shared.write(loader, batch.waveforms)
        return replace(packed, samples=samples, batch=replace(batch, waveforms=[]))


def loaded(
    dealt: Iterable[Dealt], config: DataConfig, timeout: float, pin: bool = False, seconds: float | None = None
) -> Iterator[Loaded]:
    """Load batches in order.

    Args:
        dealt: The clips of each batch. Each loader process iterates over all of it, in its own copy.
        config: The section `data`. `num_workers` is the number of loader processes. 0 loads in this process.
        timeout: Seconds to wait for one batch of the loader processes. 0 sets no limit.
        pin: Put the waveforms of each batch into one piece of page-locked memory, from which a GPU can copy
            asynchronously. Needs a GPU.
        seconds: Seconds of audio in the largest batch. None: as much as `config` allows.

    Yields:
        The batches.

    Raises:
        UserError: The clips cannot be dealt, the loader processes cannot start, or they do not deliver each batch in
            time.
        RuntimeError: A loader process died (torch's message names it).
    """
    if seconds is None:
        seconds = min(config.max_seconds, config.max_cuts * config.max_clip_seconds)
    try:
        loader = _loader(dealt, config.num_workers, timeout, pin, min(seconds, MOST_SECONDS))
    except OSError as error:
        raise UserError(
            f"data.num_workers={config.num_workers}: loader processes cannot start ({error}); free space in /dev/shm "
            "or start the container with a larger --shm-size, raise the limits of open files and processes (ulimit "
            "-n, ulimit -u), or set data.num_workers=0"
        ) from error
    number = 0
    while isinstance(packed := _next(loader, config.num_workers, timeout), _Packed):
        number += 1
        yield packed.unpacked()
    if packed is not None and packed.error:
        raise packed.error
    if packed is None or packed.number != number:
        raise UserError(
            f"data.num_workers={config.num_workers}: a batch was lost on its way from a loader process; check that "
            "memory is not full, and run the same command again"
        )


def _loader(
    dealt: Iterable[Dealt], workers: int, timeout: float, pin: bool, seconds: float
) -> Iterator[_Packed | _End]:
    _try_queues(workers)
    size = int((seconds + 1) * SAMPLE_RATE)  # lengths are rounded to whole samples
    shared = SharedSamples(workers, SLOTS, size) if workers else None
    # loader processes inherit the manifest and the shared memory, so they must be forked
    wait = min(timeout or CHECK_S, CHECK_S)
    options: dict[str, Any] = {"multiprocessing_context": "fork", "prefetch_factor": AHEAD, "timeout": wait}
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
    started = time.monotonic()
    while True:
        try:
            return next(loader, None)
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            if not timeout or time.monotonic() - started < timeout:
                continue  # all loader processes live
            raise UserError(
                f"data.num_workers={num_workers}: the loader processes delivered no batch in {timeout:g} s; check that "
                "the file systems of the manifest and of the audio answer, and that memory and /dev/shm are not full "
                "(df /dev/shm; a container gets more with --shm-size), set data.num_workers=0 to see the error itself, "
                "or raise train.hang_seconds"
            ) from error
