"""The order of the clips of one epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from lhotse.cut import Cut

from arkasr.data.training_cuts import Manifest

START = (0, 0)  # index into the order of shards, line


def epoch_order(seed: int, epoch: int, num_shards: int) -> list[int]:
    """Permute the shards of a manifest.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        num_shards: Number of shards.

    Returns:
        The numbers of all shards, in an order that depends on the arguments only.
    """
    order = list(range(num_shards))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


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
