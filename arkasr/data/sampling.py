"""The training batches of one rank: bucketed by duration, distributed over ranks, resumable at any batch.

Exact resuming draws the batches again from the start of the epoch, without reading audio. Example: an epoch starts on
4 ranks, stops after 100 batches per rank and resumes on 2 ranks.

1. The first 400 batches are drawn in groups of 4, as before. They are discarded.
2. The rest is drawn in groups of 2, and each rank takes its own batch of every group.

So no clip is lost or repeated within the epoch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch
from arkasr.data.bucketing import BatchLimits, Buckets, bucket_limits
from arkasr.data.loading import loaded
from arkasr.data.order import START, CutStream, epoch_order
from arkasr.data.training_cuts import open_manifest
from arkasr.utils.console import log

NUM_CLIPS_FOR_BINS = 10_000  # number of clips from whose lengths the bucket limits are estimated
ORDER = 2  # increase whenever the same seed and epoch would give other batches


class _RankBatches:
    """The cuts of this rank's batches in one epoch, without the batches that were trained on before.

    taken: pairs (number of ranks, batches per rank), in order: how the epoch was trained on so far. These batches are
    drawn again and discarded.
    positions: the stream's position when each batch was drawn. The loader reads ahead, so they are queued here.
    """

    def __init__(self, buckets: Buckets, stream: CutStream, taken: Sequence[tuple[int, int]], rank: int, ranks: int):
        self.buckets, self.stream, self.taken, self.rank, self.ranks = buckets, stream, taken, rank, ranks
        self.positions: deque[tuple[int, int]] = deque()

    def __iter__(self) -> Iterator[list[Cut]]:
        for ranks, count in self.taken:
            for _ in range(count):
                self.buckets.draw(ranks)
        while group := self.buckets.draw(self.ranks):
            self.positions.append(self.stream.position)
            yield group[self.rank]


class TrainingBatches:
    """An endless iterable of the batches of one rank, epoch after epoch.

    The order within one epoch depends on seed and epoch only, not on global random generators. Batches are drawn in
    groups of `world_size`, and each rank takes its own batch of every group. All ranks therefore get the same number of
    batches. The clips of an incomplete last group are spread over all ranks. If there are fewer clips than ranks, some
    are copied. Ids of copies contain `_dup`.

    `data.resume` selects how `load_state_dict` continues:

    - `exact`: the batches up to the position are drawn again, without reading audio. The batches that follow are the
      same as without interruption.
    - `reseed`: the epoch continues at once with the cuts that were not read, in a new order that depends on seed,
      epoch and position. Clips that had been read but not trained on, at most `data.buffer_clips`, are left out until
      the next epoch.

    Args:
        config: The section `data`.
        seed: Seed of the order.
        rank: Number of this rank.
        world_size: Number of ranks.
        timeout: Seconds to wait for each batch of the loader processes. 0 sets no limit.

    Attributes:
        epoch: Number of the epoch, from 0.
        consumed: Batches returned in this epoch since the last change of `world_size`, per rank. Loader processes run
            ahead, so these are batches returned by the iterator, not batches drawn.
        start: Position at which this epoch starts, see `CutStream`.
        read: Position up to which cuts had been read when the last returned batch was drawn. Up to
            `data.buffer_clips` of these cuts are in no batch yet.
        taken: Pairs (number of ranks, batches per rank) of this epoch before the last change of `world_size`.

    Raises:
        UserError: See `arkasr.data.training_cuts.open_manifest`.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int = 0, world_size: int = 1, timeout: float = 0.0):
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        self.timeout, self.manifest, self.limits = timeout, open_manifest(config), BatchLimits(config)
        self.bounds = self._bounds()
        self.epoch = self.consumed = 0
        self.start = self.read = START
        self.taken: list[tuple[int, int]] = []

    def _bounds(self) -> list[float]:
        """Return the limits of the buckets, from the first clips of epoch 0. They are the same in every epoch."""
        clips = list(islice(CutStream(self.manifest, self._order(0)), NUM_CLIPS_FOR_BINS))
        return bucket_limits(map(self.limits.length, clips), min(self.config.num_buckets, max(len(clips) // 2, 1)))

    def _order(self, epoch: int) -> Sequence[int]:
        return epoch_order(self.seed, epoch, self.manifest.num_shards)

    def _rank_batches(self) -> _RankBatches:
        stream = CutStream(self.manifest, self._order(self.epoch), self.start)
        rng = random.Random(f"batches {self.seed} {self.epoch} {self.start}")
        buckets = Buckets(stream, self.limits, self.bounds, self.config.buffer_clips, rng)
        return _RankBatches(
            buckets, stream, [*self.taken, (self.world_size, self.consumed)], self.rank, self.world_size
        )

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rank_batches = self._rank_batches()
            for batch in loaded(rank_batches, self.config.num_workers, self.timeout):
                self.consumed, self.read = self.consumed + 1, rank_batches.positions.popleft()
                yield batch
            self.epoch, self.consumed, self.start, self.read, self.taken = self.epoch + 1, 0, START, START, []

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch returned. It is the same on all ranks."""
        taken, start, read = [list(pair) for pair in self.taken], list(self.start), list(self.read)
        own = {"order": ORDER, "epoch": self.epoch, "consumed": self.consumed, "world_size": self.world_size}
        return own | {"taken": taken, "start": start, "read": read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Args:
            state: Result of `state_dict`, from any rank and any number of ranks.
        """
        if state.get("order") != ORDER:
            log(
                f"warning: epoch {state['epoch']} was begun by another version of arkasr, which draws clips in another "
                "order: in the rest of this epoch some clips come twice and some are left out"
            )
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
            f"epoch {self.epoch} continues at place {self.start[0] + 1} of {self.manifest.num_shards} in a new order, "
            f"without up to {self.config.buffer_clips} clips read before (data.resume=reseed)"
        )
