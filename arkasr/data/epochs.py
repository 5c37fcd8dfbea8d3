"""What the clips of an epoch are read from: the interface of manifests in memory, on disk and of mixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from arkasr.data.lazy_cut import LazyCut

Keep = Callable[[int], bool]


class Manifest(Protocol):
    """The clips of one epoch: numbered shards, each a fixed sequence of lines.

    Attributes:
        num_shards: Number of shards.
    """

    num_shards: int

    def read(self, shard: int, line: int, keep: Keep | None = None) -> Iterator[tuple[int, LazyCut]]:
        """Yield the selected clips of one shard.

        Args:
            shard: Number of the shard, from 0.
            line: First line to read, from 0.
            keep: Decides by the hash of its id (`arkasr.data.mixing.turn`) whether a clip is read. None: all are.

        Yields:
            Line number and clip. A line whose cut has several supervisions gives several clips.
        """
        ...

    def epoch(self, seed: int, number: int) -> tuple[Manifest, list[int]]:
        """Return the clips of one epoch.

        Args:
            seed: Seed of the run.
            number: Number of the epoch, from 0.

        Returns:
            What to read, and the order of its shards.
        """
        ...

    def seconds(self, exact: bool = True) -> float:
        """Return the total duration of the clips.

        Args:
            exact: Whether an estimate that needs no pass over the manifest is not enough.

        Returns:
            Seconds.
        """
        ...
