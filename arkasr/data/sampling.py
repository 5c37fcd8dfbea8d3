"""Which clips a rank trains on, in which order: bucketed by duration, spread over ranks, resumed at any batch."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.base import CutSampler, TimeConstraint
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from torch.utils.data import DataLoader, Dataset

from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch, load_batch
from arkasr.data.manifests import Manifest, open_manifest
from arkasr.utils.console import log

FOR_BINS = 10_000  # clips whose durations say where buckets begin
START = (0, 0)


def _leave_signals(worker: int) -> None:
    """Let signals sent to all processes, as schedulers and terminals do, end no loader: the training process does."""
    for each in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the training process says so, as it does when it exits."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


class _Clips(Dataset):
    """Lhotse's map-style protocol: an index is a batch of cuts."""

    def __getitem__(self, cuts: CutSet) -> Batch:
        return load_batch(cuts)

    def __len__(self) -> int:
        raise TypeError("the number of batches is not known ahead")


class CutStream:
    """The cuts of one epoch from a position on, read once.

    position: (place of a shard in `order`, line in it) after the cut read last.
    """

    def __init__(self, manifest: Manifest, order: Sequence[int], start: tuple[int, int] = START):
        self.manifest, self.order, self.start, self.position = manifest, order, start, start

    def __iter__(self) -> Iterator[Cut]:
        first, line = self.start
        for place in range(first, len(self.order)):
            for number, cut in self.manifest.read(self.order[place], line if place == first else 0):
                self.position = (place, number + 1)
                yield cut


class _Ours:
    """This rank's batches of one epoch, without those that were `taken`: replays cuts, not audio.

    taken: (number of ranks, batches of each) by which the epoch was trained on so far, in order. The sampler deals the
    same clips as it did then and goes on with as many ranks as there are now, so no clip is lost or comes twice.
    `positions` gets the stream's position at each batch, for the loader reads ahead of what is handed out.
    """

    def __init__(self, sampler: CutSampler, stream: CutStream, taken: Sequence[tuple[int, int]]):
        self.sampler, self.stream, self.taken = sampler, stream, taken
        self.positions: deque[tuple[int, int]] = deque()

    def __iter__(self) -> Iterator[CutSet]:
        sampler, own = self.sampler, (self.sampler.rank, self.sampler.world_size)
        sampler.rank, sampler.world_size = 0, self.taken[0][0]  # which iter() hands to the sampler's buckets
        iter(sampler)  # begins the epoch, as every other iter() of it would
        for sampler.world_size, count in self.taken:
            for _ in range(count):
                next(sampler, None)
        sampler.rank, sampler.world_size = own
        while (cuts := next(sampler, None)) is not None:
            self.positions.append(self.stream.position)
            yield cuts


def _loaded(loader: DataLoader) -> Iterator[Batch]:
    try:
        yield from loader
    except (ConnectionError, EOFError):  # a killed worker's connection breaks before torch hears of its death,
        time.sleep(5)  # which is then raised in here, with its name
        raise


class TrainingBatches:
    """Endless batches, of which `state_dict` says where the next one comes from.

    Each epoch is shuffled by seed and epoch alone; every rank takes its own batch of each group, so all have equally
    many. Loader workers run ahead, which is why the state counts batches handed out, not batches sampled.

    Resuming is exact: the epoch's cuts (not their audio) are dealt anew up to the position. With data.resume=reseed
    they are not: the epoch goes on with the lines not yet read, shuffled by seed, epoch and position. That gives up
    the clips, at most data.buffer_clips, that had been read but not trained on; they come again in the next epoch.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int = 0, world_size: int = 1):
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        self.manifest = open_manifest(config)
        self.bins = self._bins()
        self.epoch = self.consumed = 0
        self.start = self.read = START  # of the epoch's order: where its dealing began, and what it has read
        self.taken: list[tuple[int, int]] = []  # by other numbers of ranks, since `start`

    def _bins(self) -> list[float] | None:
        """Return the durations at which buckets begin, from the first clips in an order that never changes."""
        clips = list(islice(CutStream(self.manifest, self._order(0)), FOR_BINS))
        buckets = min(self.config.num_buckets, len(clips) // 2)
        return estimate_duration_buckets(clips, buckets, TimeConstraint()) if buckets > 1 else None

    def _order(self, epoch: int) -> list[int]:
        order = list(range(self.manifest.num_shards))
        random.Random(f"{self.seed} {epoch}").shuffle(order)
        return order

    def _ours(self) -> _Ours:
        stream, size = CutStream(self.manifest, self._order(self.epoch), self.start), self.config.buffer_clips
        if self.bins is not None:
            kind = partial(DynamicBucketingSampler, duration_bins=self.bins, buffer_size=size)
        else:
            kind = partial(DynamicCutSampler, shuffle_buffer_size=size)
        fresh = random.Random(f"{self.seed} {self.epoch} {self.start}").getrandbits(32)
        sampler = kind(
            stream,
            max_duration=self.config.max_seconds,
            max_cuts=self.config.max_cuts,
            shuffle=True,
            seed=self.seed if self.start == START else fresh,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=False,
        )
        sampler.set_epoch(self.epoch)
        taken = [*self.taken, (self.world_size, self.consumed)]
        return _Ours(sampler, stream, taken)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            ours = self._ours()
            loader = DataLoader(
                _Clips(),
                sampler=ours,
                batch_size=None,
                num_workers=self.config.num_workers,
                collate_fn=None,
                worker_init_fn=_leave_signals,
                generator=torch.Generator(),  # its own, so that resuming draws nothing from the run's
            )
            for batch in _loaded(loader):
                self.consumed, self.read = self.consumed + 1, ours.positions.popleft()
                yield batch
            self.epoch, self.consumed, self.start, self.read, self.taken = self.epoch + 1, 0, START, START, []

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch handed out; the same on all ranks."""
        taken, start, read = [list(pair) for pair in self.taken], list(self.start), list(self.read)
        own = {"epoch": self.epoch, "consumed": self.consumed, "world_size": self.world_size}
        return own | {"taken": taken, "start": start, "read": read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Carry on after that position, with any number of ranks."""
        self.epoch, self.consumed = state["epoch"], 0
        self.start, self.read = tuple(state["start"]), tuple(state["read"])
        self.taken = [tuple(pair) for pair in state["taken"]]
        if self.config.resume == "reseed" and self.read != self.start:
            self._reseed()
        elif state["world_size"] == self.world_size:
            self.consumed = state["consumed"]
        elif state["consumed"]:
            self.taken.append((state["world_size"], state["consumed"]))

    def _reseed(self) -> None:
        self.start, self.taken = self.read, []
        log(
            f"epoch {self.epoch} carries on at shard {self.start[0]}, line {self.start[1]}, in a new order, without "
            f"up to {self.config.buffer_clips} clips read before (data.resume=reseed)"
        )
