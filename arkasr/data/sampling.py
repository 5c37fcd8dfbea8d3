"""The training batches of one rank: bucketed by duration, distributed over ranks, resumable at any batch.

Exact resuming runs the sampler again from the start of the epoch, without reading audio. Example: an epoch starts on 4
ranks, stops after 100 batches per rank and resumes on 2 ranks.

1. The sampler draws the first 400 batches in groups of 4, as it did before. They are discarded.
2. It draws the rest in groups of 2, and each rank takes its own batch of every group.

So no clip is lost or repeated within the epoch.
"""

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

NUM_CLIPS_FOR_BINS = 10_000  # number of clips from whose durations the bucket limits are estimated
START = (0, 0)  # index into the order of shards, line


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
    """Loads one batch. In Lhotse's map-style protocol the index is the batch's cuts."""

    def __getitem__(self, cuts: CutSet) -> Batch:
        return load_batch(cuts)

    def __len__(self) -> int:
        raise TypeError("the number of batches is not known in advance")


class CutStream:
    """The cuts of one epoch from a position on. Can be iterated once.

    Args:
        manifest: The cuts.
        order: Shard numbers in the order of the epoch.
        start: The position: index into `order`, and line in that shard.

    Attributes:
        position: The position after the last cut read.
    """

    def __init__(self, manifest: Manifest, order: Sequence[int], start: tuple[int, int] = START):
        self.manifest, self.order, self.start, self.position = manifest, order, start, start

    def __iter__(self) -> Iterator[Cut]:
        first, line = self.start
        for index in range(first, len(self.order)):
            for number, cut in self.manifest.read(self.order[index], line if index == first else 0):
                self.position = (index, number + 1)
                yield cut


class _RankBatches:
    """The cuts of this rank's batches in one epoch, without the batches that were trained on before.

    taken: pairs (number of ranks, batches per rank), in order: how the epoch was trained on so far. The sampler draws
    these batches again and discards them. The last pair has the present number of ranks.
    positions: the stream's position when each batch was drawn. The loader reads ahead, so they are queued here.
    """

    def __init__(self, sampler: CutSampler, stream: CutStream, taken: Sequence[tuple[int, int]]):
        self.sampler, self.stream, self.taken = sampler, stream, taken
        self.positions: deque[tuple[int, int]] = deque()

    def __iter__(self) -> Iterator[CutSet]:
        sampler, own = self.sampler, (self.sampler.rank, self.sampler.world_size)
        sampler.rank, sampler.world_size = 0, self.taken[0][0]  # iter() passes them to the sampler's buckets
        iter(sampler)  # starts the epoch. Calling iter() again would restart it
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
    except (ConnectionError, EOFError):
        # The connection of a killed worker breaks before torch notices its death. During this wait torch raises an
        # error that names the worker's process.
        time.sleep(5)
        raise


class TrainingBatches:
    """An endless iterable of the batches of one rank, epoch after epoch.

    The order within one epoch depends on seed and epoch only. The sampler draws groups of `world_size` batches, and
    each rank takes its own batch of every group. All ranks therefore get the same number of batches. Lhotse fills an
    incomplete last group with copies of clips, whose ids contain `_dup`.

    `data.resume` selects how `load_state_dict` continues:

    - `exact`: the sampler runs again up to the position, without reading audio. The batches are the same as without
      interruption.
    - `reseed`: the epoch continues at once with the lines that were not read, in a new order that depends on seed,
      epoch and position. Clips that had been read but not trained on, at most `data.buffer_clips`, are left out until
      the next epoch.

    Args:
        config: The section `data`.
        seed: Seed of the order.
        rank: Number of this rank.
        world_size: Number of ranks.

    Attributes:
        epoch: Number of the epoch, from 0.
        consumed: Batches returned in this epoch since the last change of `world_size`, per rank. Loader processes run
            ahead, so these are batches returned by the iterator, not batches drawn by the sampler.
        start: Position at which the sampler of this epoch starts, see `CutStream`.
        read: Position up to which cuts had been read when the last returned batch was drawn. The sampler holds up to
            `data.buffer_clips` of these cuts, which are in no batch yet.
        taken: Pairs (number of ranks, batches per rank) of this epoch before the last change of `world_size`.

    Raises:
        UserError: See `arkasr.data.manifests.open_manifest`.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int = 0, world_size: int = 1):
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        self.manifest = open_manifest(config)
        self.bins = self._bins()
        self.epoch = self.consumed = 0
        self.start = self.read = START
        self.taken: list[tuple[int, int]] = []

    def _bins(self) -> list[float] | None:
        """Return the bucket limits in seconds, from the first clips of epoch 0. They are the same in every epoch."""
        clips = list(islice(CutStream(self.manifest, self._order(0)), NUM_CLIPS_FOR_BINS))
        buckets = min(self.config.num_buckets, len(clips) // 2)
        return estimate_duration_buckets(clips, buckets, TimeConstraint()) if buckets > 1 else None

    def _order(self, epoch: int) -> list[int]:
        order = list(range(self.manifest.num_shards))
        random.Random(f"{self.seed} {epoch}").shuffle(order)
        return order

    def _rank_batches(self) -> _RankBatches:
        stream, size = CutStream(self.manifest, self._order(self.epoch), self.start), self.config.buffer_clips
        make_sampler: partial[CutSampler]
        if self.bins is not None:
            make_sampler = partial(DynamicBucketingSampler, duration_bins=self.bins, buffer_size=size)
        else:
            make_sampler = partial(DynamicCutSampler, shuffle_buffer_size=size)
        reseeded = random.Random(f"{self.seed} {self.epoch} {self.start}").getrandbits(32)
        sampler = make_sampler(
            stream,
            max_duration=self.config.max_seconds,
            max_cuts=self.config.max_cuts,
            shuffle=True,
            seed=self.seed if self.start == START else reseeded,
            rank=self.rank,
            world_size=self.world_size,
            drop_last=False,
        )
        sampler.set_epoch(self.epoch)
        taken = [*self.taken, (self.world_size, self.consumed)]
        return _RankBatches(sampler, stream, taken)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rank_batches = self._rank_batches()
            loader = DataLoader(
                _ClipDataset(),
                sampler=rank_batches,
                batch_size=None,
                num_workers=self.config.num_workers,
                collate_fn=None,
                worker_init_fn=_ignore_signals,
                generator=torch.Generator(),  # separate, so that resuming does not change the global generator
            )
            for batch in _loaded(loader):
                self.consumed, self.read = self.consumed + 1, rank_batches.positions.popleft()
                yield batch
            self.epoch, self.consumed, self.start, self.read, self.taken = self.epoch + 1, 0, START, START, []

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned. It is the same on all ranks."""
        taken, start, read = [list(pair) for pair in self.taken], list(self.start), list(self.read)
        own = {"epoch": self.epoch, "consumed": self.consumed, "world_size": self.world_size}
        return own | {"taken": taken, "start": start, "read": read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state: Result of `state_dict`, from any rank and any number of ranks.
        """
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
            f"epoch {self.epoch} continues at shard {self.start[0]}, line {self.start[1]}, in a new order, without "
            f"up to {self.config.buffer_clips} clips read before (data.resume=reseed)"
        )
