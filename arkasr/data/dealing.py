"""Dealing of clips to ranks: which clips form a batch, and which rank trains on it.

Every process that loads batches deals all batches of all ranks, and loads its own. Dealing reads lengths only. It
depends on the seed, the epoch and the position, so all processes agree without a message.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from arkasr.config.schema import AugmentConfig, DataConfig
from arkasr.data.bucketing import BatchLimits, Buckets, bucket_limits
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.order import START, CutStream
from arkasr.data.speeds import Speeds
from arkasr.data.training_cuts import open_manifest

NUM_CLIPS_FOR_BINS = 10_000  # number of clips from whose lengths the bucket limits are estimated


class Dealt(NamedTuple):
    """One batch of one rank, before its audio is loaded.

    Attributes:
        epoch: Number of the epoch.
        read: Position up to which cuts had been read when the batch was drawn, see `CutStream`.
        clips: The clips.
    """

    epoch: int
    read: tuple[int, int]
    clips: list[LazyCut]


class Dealer:
    """Opens the manifest and deals its clips.

    Args:
        config: The section `data`.
        seed: Seed of the order.
        rank: Number of this rank.
        ranks: Number of ranks.
        needs_text: Refuse clips without transcript.
        augment: The section `augment`. None changes no clip.

    Attributes:
        num_shards: Number of shards of the manifest.
        longest_seconds: Length of the longest of the first 10,000 clips of epoch 0.

    Raises:
        UserError: See `arkasr.data.training_cuts.open_manifest`.
    """

    def __init__(
        self,
        config: DataConfig,
        seed: int,
        rank: int,
        ranks: int,
        needs_text: bool = True,
        augment: AugmentConfig | None = None,
    ):
        self.config, self.seed, self.rank, self.ranks = config, seed, rank, ranks
        self.manifest, self.limits = open_manifest(config, needs_text=needs_text), BatchLimits(config)
        self.num_shards = self.manifest.num_shards
        self.speeds = Speeds(augment or AugmentConfig(), config, seed)
        self.bounds = self._bounds()

    def _bounds(self) -> list[float]:
        """Return the limits of the buckets, from the first clips of epoch 0. They are the same in every epoch."""
        clips = list(islice(self.stream(0), NUM_CLIPS_FOR_BINS))
        self.longest_seconds = max((clip.seconds for clip in clips), default=0.0)
        return bucket_limits(map(self.limits.length, clips), min(self.config.num_buckets, max(len(clips) // 2, 1)))

    def stream(self, epoch: int, start: tuple[int, int] = START) -> CutStream:
        """Return the clips of an epoch in order.

        Args:
            epoch: Number of the epoch.
            start: Position to begin at.

        Returns:
            The clips.
        """

        def at_its_speed(clip: LazyCut, place: tuple[int, int, int]) -> LazyCut:
            return self.speeds.of(clip, epoch, place)

        return CutStream(*self.manifest.epoch(self.seed, epoch), start, at_its_speed)

    def buckets(self, epoch: int, stream: CutStream) -> Buckets:
        """Return the buckets of an epoch.

        Args:
            epoch: Number of the epoch.
            stream: Its clips, none of them read yet.

        Returns:
            Buckets from which groups of batches are drawn. Their order depends on the seed, the epoch and the position
            of the stream.
        """
        rng = random.Random(f"batches {self.seed} {epoch} {stream.position}")
        return Buckets(stream, self.limits, self.bounds, self.config.buffer_clips, rng)


class Deals:
    """The batches of one rank from a position on, epoch after epoch without end.

    The batches up to the position are drawn when the object is made. Processes that are forked afterwards go on from
    there. Can be iterated once per process.

    Args:
        dealer: Deals the clips.
        epoch: Number of the epoch.
        start: Position at which the epoch starts.
        taken: Pairs (number of ranks, batches per rank), in order: how the epoch was trained on so far. These batches
            are drawn again and discarded.
    """

    def __init__(self, dealer: Dealer, epoch: int, start: tuple[int, int], taken: Sequence[tuple[int, int]]):
        self.dealer, self.epoch = dealer, epoch
        self._begin(start)
        for ranks, count in taken:
            for _ in range(count):
                self.buckets.draw(ranks)
        self.buckets.pause()

    def _begin(self, start: tuple[int, int]) -> None:
        self.stream = self.dealer.stream(self.epoch, start)
        self.buckets = self.dealer.buckets(self.epoch, self.stream)

    def __iter__(self) -> Iterator[Dealt]:
        while True:
            while group := self.buckets.draw(self.dealer.ranks):
                yield Dealt(self.epoch, self.stream.position, group[self.dealer.rank])
            self.epoch += 1
            self._begin(START)
