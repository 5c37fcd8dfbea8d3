"""The order of the clips of one epoch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from arkasr.data.epochs import Manifest
from arkasr.data.lazy_cut import LazyCut

START = (0, 0)  # index into the order of shards, line

Change = Callable[[LazyCut, tuple[int, int, int]], LazyCut]


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
    """The clips of one epoch from a position on.

    Each iteration continues after the last clip that was read, with newly opened files. So a process can go on where
    the process that started it stopped.

    Args:
        manifest: The cuts.
        order: Shard numbers in the order of the epoch.
        start: The position: index into `order`, and line in that shard.
        change: Called with each clip and its place: shard, line, and number of the clip in the line, from 1. Returns
            the clip that is read instead. None changes no clip.

    Attributes:
        position: The position after the line of the last clip read.
    """

    def __init__(
        self, manifest: Manifest, order: Sequence[int], start: tuple[int, int] = START, change: Change | None = None
    ):
        self.manifest, self.order, self.position, self.change = manifest, order, start, change
        self._line, self._read = start, 0  # the line to begin with, and the number of its clips that were read

    def __iter__(self) -> Iterator[LazyCut]:
        (first, line), skip = self._line, self._read
        for index in range(first, len(self.order)):
            for number, clip in self.manifest.read(self.order[index], line if index == first else 0):
                if skip and (index, number) == (first, line):
                    skip -= 1
                    continue
                self._read = self._read + 1 if self._line == (index, number) else 1
                self._line, self.position = (index, number), (index, number + 1)
                yield self.change(clip, (self.order[index], number, self._read)) if self.change else clip
