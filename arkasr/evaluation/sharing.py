"""Which batches a rank transcribes: each rank takes the next part of the batches when it has finished one."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from lhotse.cut import Cut

from arkasr.errors import UserError
from arkasr.evaluation.transcribing import Result, Transcribing
from arkasr.evaluation.workers import Workers

T = TypeVar("T")


def split(batches: Sequence[T], ranks: int) -> list[list[T]]:
    """Split batches into parts, large ones first and single batches at the end.

    With every round, each rank takes a quarter of its fair share of what is left. So a rank starts its loader processes
    a few times only. If the slowest rank has at least a quarter of the mean speed, no rank waits at the end for longer
    than one batch takes.

    Args:
        batches: The batches, the longest clips first.
        ranks: Number of ranks.

    Returns:
        The parts in the order in which ranks take them. One rank has one part.
    """
    if ranks == 1:
        return [list(batches)] if batches else []
    parts: list[list[T]] = []
    start = 0
    while start < len(batches):
        size = max(1, (len(batches) - start) // (4 * ranks))
        taken = batches[start : start + size * ranks]
        parts += [list(taken[rank::ranks]) for rank in range(min(ranks, len(taken)))]
        start += len(taken)
    return parts


def transcribed(
    batches: Iterable[list[Cut]], workers: Workers, transcribing: Transcribing, dtype: str
) -> Iterator[Result]:
    """Transcribe the batches that this rank takes.

    Args:
        batches: The cuts of each batch, the same on all ranks.
        workers: The ranks. All of them must call this.
        transcribing: Transcribes on the device of this rank.
        dtype: See `Transcribing.results`.

    Yields:
        One result per batch of this rank.

    Raises:
        UserError: The ranks have formed different batches.
    """
    every = list(batches)
    _require_equal(every, workers)
    parts, key = split(every, workers.world_size), workers.new_key()
    with workers.watched(transcribing.timeout):
        while (number := workers.add(key, 1)) <= len(parts):
            for result in transcribing.results(parts[number - 1], dtype):
                yield result
                workers.check()
            workers.check()


def _require_equal(batches: Sequence[Sequence[Cut]], workers: Workers) -> None:
    """Compare the batches of this rank with those of rank 0: another manifest would leave clips out."""
    found = hashlib.sha256()
    for cuts in batches:
        found.update("\n".join(cut.id for cut in cuts).encode("utf-8", "surrogatepass") + b"\n\n")
    if workers.decide(found.hexdigest) != found.hexdigest():
        raise UserError(
            f"rank {workers.rank} on {socket.gethostname()} has read other clips than rank 0; put --datadir and "
            "--expdir on a file system that all machines share, under the same paths"
        )
