"""Batches of clips of similar length, within limits that hold for the padded batch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from random import Random
from typing import NamedTuple

from arkasr.config.schema import DataConfig
from arkasr.data.lazy_cut import LazyCut
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

    def length(self, clip: LazyCut) -> float:
        """Return the length of one clip in seconds.

        Args:
            clip: The clip.

        Returns:
            Seconds.
        """
        return max(clip.seconds, clip.text_bytes / self.rate) if self.rate else clip.seconds

    def allow(self, clips: int, longest: float) -> bool:
        """Check whether the batch is within the limits. One clip is always allowed.

        Args:
            clips: Number of clips.
            longest: Largest length of the clips, in seconds.

        Returns:
            True if it is.
        """
        return clips <= 1 or (clips <= self.max_cuts and clips * longest <= self.max_seconds)

    def report_long(self, clip: LazyCut, length: float) -> None:
        """Log the first clip that is too long for a batch with other clips.

        Args:
            clip: The clip.
            length: Its length in seconds.
        """
        if length > self.max_seconds and not self._reported:
            self._reported = True
            log(
                f"{clip.cut().id}: counts {length:g} s, above data.max_seconds={self.max_seconds:g}; it forms its own "
                "batch, as do others of that kind; lower data.max_clip_seconds to leave them out"
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


class _Held(NamedTuple):
    """A clip in a bucket. Clips are in the order of their transcripts' sizes, or in random order if these are equal."""

    text_bytes: int
    tie: float
    number: int  # of clips read before
    length: float
    clip: LazyCut


class _Bucket:
    """Clips in the order of `_Held`, with their total length."""

    def __init__(self) -> None:
        self.clips: list[_Held] = []
        self.seconds = 0.0

    def add(self, held: _Held) -> None:
        insort(self.clips, held)
        self.seconds += held.length

    def take(self, limits: BatchLimits, batches: int, rng: Random) -> _Group:
        """Take the clip that was read first, and its neighbours, enough for some batches. Leave the others.

        Taking the first clip bounds the time that a clip of unusual size waits.
        """
        first = bisect_left(self.clips, min(self.clips, key=itemgetter(2)))
        low, high, seconds = first, first + 1, self.clips[first].length
        while high - low < len(self.clips) and limits.batches(high - low, seconds) < batches:
            if low and (high == len(self.clips) or first - low < high - first):
                low -= 1
                seconds += self.clips[low].length
            else:
                seconds += self.clips[high].length
                high += 1
        group = _Group(self.clips[low:high], seconds)
        del self.clips[low:high]
        self.seconds = self.seconds - seconds if self.clips else 0.0  # without rounding errors
        rng.shuffle(group.clips)
        return group


@dataclass
class _Group:
    """Clips with transcripts of similar size, for the batches of one step."""

    clips: list[_Held] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, limits: BatchLimits) -> list[LazyCut]:
        """Take clips from the end until the batch is full. Clips that do not fit begin the next batches."""
        batch: list[LazyCut] = []
        misfits: list[_Held] = []
        longest = 0.0
        while self.clips and limits.allow(len(batch) + 1, longest) and len(misfits) < MOST_MISFITS:
            held = self.clips.pop()
            if limits.allow(len(batch) + 1, max(longest, held.length)):
                batch.append(held.clip)
                longest, self.seconds = max(longest, held.length), self.seconds - held.length
            else:
                misfits.append(held)
        self.clips += reversed(misfits)
        return batch


class Buckets:
    """Up to `size` clips of a stream, in buckets by length, from which groups of batches are drawn at random.

    The result depends on the arguments only. No clip is left out.

    Args:
        stream: The clips of an epoch. After `pause` it is iterated again, and must then continue.
        limits: Limits of each batch.
        bounds: Result of `bucket_limits`.
        size: Number of clips held.
        rng: Source of random numbers.
    """

    def __init__(self, stream: Iterable[LazyCut], limits: BatchLimits, bounds: Sequence[float], size: int, rng: Random):
        self._stream, self._limits, self._bounds, self._rng = stream, limits, bounds, rng
        self._clips: Iterator[LazyCut] | None = None
        self._buckets = [_Bucket() for _ in range(len(bounds) + 1)]
        self._missing, self._read = size, 0

    def pause(self) -> None:
        """Read ahead as the next draw would, then close the stream's files until then.

        Processes that are forked in between inherit the clips, and do not share positions in files.
        """
        self._fill()
        self._clips = None

    def draw(self, ranks: int) -> list[list[LazyCut]]:
        """Draw one batch per rank, so that ranks wait little for each other.

        The clips of all batches are of similar length, and their transcripts too: a rollout lasts as long as its
        longest transcript.

        Args:
            ranks: Number of batches.

        Returns:
            The batches. At the end of the stream fewer batches are left: their clips are spread over all ranks, see
            `spread`. Afterwards the result is empty.
        """
        batches: list[list[LazyCut]] = []
        group, place = _Group(), None
        while len(batches) < ranks:
            self._fill()
            if self._limits.batches(len(group.clips), group.seconds) < 1:  # also after the last one of a bucket
                self._put_back(group)
                if (place := self._choose(ranks, place)) is None:
                    break
                group = self._buckets[place].take(self._limits, ranks - len(batches), self._rng)
            batches.append(group.take(self._limits))
            self._missing += len(batches[-1])
        self._put_back(group)
        return spread(batches, ranks) if batches else []

    def _fill(self) -> None:
        if self._clips is None:
            self._clips = iter(self._stream)
        while self._missing and (clip := next(self._clips, None)) is not None:
            length = self._limits.length(clip)
            self._limits.report_long(clip, length)
            held = _Held(clip.text_bytes, self._rng.random(), self._read, length, clip)
            self._buckets[bisect_left(self._bounds, length)].add(held)
            self._read, self._missing = self._read + 1, self._missing - 1

    def _put_back(self, group: _Group) -> None:
        while group.clips:
            held = group.clips.pop()
            self._buckets[bisect_left(self._bounds, held.length)].add(held)

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


def spread(batches: list[list[LazyCut]], ranks: int) -> list[list[LazyCut]]:
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


def _copy(clip: LazyCut, number: int) -> LazyCut:
    return clip._replace(suffix=f"{clip.suffix}_dup{number}")
