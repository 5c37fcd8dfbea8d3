"""Batches of clips of similar length, within limits that hold for the padded batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from random import Random

from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.utils.console import log

MOST_MISFITS = 10  # clips of a bucket that are tried in vain before the batch is closed


class BatchLimits:
    """The limits of one batch.

    A clip's length is its duration, or the time that its text takes at `data.text_bytes_per_second`, whichever is
    longer. The number of clips times the largest length is at most `data.max_seconds`. So padded audio has at most
    `max_seconds`, and padded text at most `max_seconds * text_bytes_per_second` bytes, and no more tokens.

    Args:
        config: The section `data`.
    """

    def __init__(self, config: DataConfig):
        self.max_seconds, self.max_cuts = config.max_seconds, config.max_cuts
        self.rate = config.text_bytes_per_second
        self._reported = False

    def length(self, cut: Cut) -> float:
        """Return the length of one clip in seconds.

        Args:
            cut: The clip.

        Returns:
            Seconds.
        """
        size = sum(len((each.text or "").encode()) for each in cut.supervisions) if self.rate else 0
        return max(cut.duration, size / self.rate) if size else cut.duration

    def allow(self, clips: int, longest: float) -> bool:
        """Check whether the batch is within the limits. One clip is always allowed.

        Args:
            clips: Number of clips.
            longest: Largest length of the clips, in seconds.

        Returns:
            True if it is.
        """
        return clips <= 1 or (clips <= self.max_cuts and clips * longest <= self.max_seconds)

    def report_long(self, cut: Cut, length: float) -> None:
        """Log the first clip that is too long for a batch with other clips.

        Args:
            cut: The clip.
            length: Its length in seconds.
        """
        if length > self.max_seconds and not self._reported:
            self._reported = True
            log(
                f"{cut.id}: counts {length:g} s, above data.max_seconds={self.max_seconds:g}; it forms its own batch, "
                "as do others of that kind; lower data.max_clip_seconds to leave them out"
            )

    def batches(self, clips: int, seconds: float) -> float:
        """Estimate how many full batches some clips make, without padding.

        Args:
            clips: Number of clips.
            seconds: Their total length.

        Returns:
            The number, with its fraction.
        """
        return max(clips / self.max_cuts, seconds / self.max_seconds)


def bucket_limits(lengths: Iterable[float], buckets: int) -> list[float]:
    """Choose the limits of buckets so that each holds about the same total length.

    Args:
        lengths: Lengths of clips, in seconds.
        buckets: Number of buckets, at least 1.

    Returns:
        The longest length of each bucket but the last, in seconds, ascending.
    """
    ordered = sorted(lengths)
    sums = list(accumulate(ordered))
    places = (bisect_left(sums, sums[-1] * bucket / buckets) for bucket in range(1, buckets))
    return sorted({ordered[place] for place in places})


class _Bucket:
    """Clips in random order, with their total length."""

    def __init__(self) -> None:
        self.clips: list[tuple[float, Cut]] = []
        self.seconds = 0.0

    def add(self, length: float, cut: Cut, rng: Random) -> None:
        """Put the clip at a random place. The clip of that place goes to the end."""
        place = rng.randrange(len(self.clips) + 1)
        self.clips.append((length, cut))
        self.clips[place], self.clips[-1] = self.clips[-1], self.clips[place]
        self.seconds += length

    def take(self, limits: BatchLimits) -> list[Cut]:
        """Take clips from the end until the batch is full. Clips that do not fit begin the next batches."""
        batch: list[Cut] = []
        misfits: list[tuple[float, Cut]] = []
        longest = 0.0
        while self.clips and limits.allow(len(batch) + 1, longest) and len(misfits) < MOST_MISFITS:
            length, cut = self.clips.pop()
            if limits.allow(len(batch) + 1, max(longest, length)):
                batch.append(cut)
                longest, self.seconds = max(longest, length), self.seconds - length
            else:
                misfits.append((length, cut))
        self.clips += reversed(misfits)
        self.seconds = self.seconds if self.clips else 0.0  # without rounding errors
        return batch


class Buckets:
    """Up to `size` clips of a stream, in buckets by length, from which groups of batches are drawn at random.

    The result depends on the arguments only. No clip is left out.

    Args:
        stream: The clips of an epoch.
        limits: Limits of each batch.
        bounds: Result of `bucket_limits`.
        size: Number of clips held.
        rng: Source of random numbers.
    """

    def __init__(self, stream: Iterable[Cut], limits: BatchLimits, bounds: Sequence[float], size: int, rng: Random):
        self._stream, self._limits, self._bounds, self._rng = iter(stream), limits, bounds, rng
        self._buckets = [_Bucket() for _ in range(len(bounds) + 1)]
        self._missing = size

    def draw(self, ranks: int) -> list[list[Cut]]:
        """Draw one batch per rank, of similar length, so that ranks wait little for each other.

        Args:
            ranks: Number of batches.

        Returns:
            The batches. At the end of the stream fewer batches are left: their clips are spread over all ranks, see
            `spread`. Afterwards the result is empty.
        """
        batches: list[list[Cut]] = []
        place = None
        for _ in range(ranks):
            self._fill()
            if (place := self._choose(ranks, place)) is None:
                break
            batches.append(self._buckets[place].take(self._limits))
            self._missing += len(batches[-1])
        return spread(batches, ranks) if batches else []

    def _fill(self) -> None:
        while self._missing and (cut := next(self._stream, None)) is not None:
            length = self._limits.length(cut)
            self._limits.report_long(cut, length)
            self._buckets[bisect_left(self._bounds, length)].add(length, cut, self._rng)
            self._missing -= 1

    def _choose(self, ranks: int, last: int | None) -> int | None:
        """Choose a bucket with enough clips for one batch, if there is any.

        For the first batch of a group, draw one in proportion to the batches it holds, if possible one with a batch for
        every rank. After that, stay with the last one, or take the next one in length.
        """
        held = [self._limits.batches(len(bucket.clips), bucket.seconds) for bucket in self._buckets]
        leasts = (ranks, 1, 0) if last is None else (1, 0)
        choices = ([place for place, batches in enumerate(held) if batches and batches >= least] for least in leasts)
        choice = next((places for places in choices if places), None)
        if choice is None:
            return None
        if last is None:
            return self._rng.choices(choice, [held[place] for place in choice])[0]
        return min(choice, key=lambda place: abs(place - last))


def spread(batches: list[list[Cut]], ranks: int) -> list[list[Cut]]:
    """Give every rank one batch, by halving the largest batches.

    Args:
        batches: At least one batch, none of them empty.
        ranks: Number of batches needed.

    Returns:
        That many batches. If there are fewer clips than ranks, single clips are copied. Ids of copies contain `_dup`.
    """
    batches = list(batches)
    while len(batches) < ranks:
        largest = max(batches, key=len)
        if len(largest) == 1:
            break
        place, half = batches.index(largest), len(largest) // 2
        batches[place : place + 1] = [largest[:half], largest[half:]]
    copies = ranks - len(batches)
    return batches + [[_copy(batches[i % len(batches)][0], i // len(batches))] for i in range(copies)]


def _copy(cut: Cut, number: int) -> Cut:
    return cut.with_id(f"{cut.id}_dup{number}")
