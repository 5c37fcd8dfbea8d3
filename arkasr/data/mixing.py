"""An epoch of a mix: how often each clip is read, and in which order.

An epoch lasts as long as all members together, T seconds. A member of S seconds with the share w of all weights is read
at the rate r = w T / S:

- floor(r) whole passes over the member, and
- one pass over the fraction f = r - floor(r) of its clips.

A clip is in the part of epoch e if (h + e f) mod 1 + f is at least 1, where h in [0, 1) is a hash of its id. The parts
of successive epochs follow each other. So each clip is read after at most ceil(1 / f) epochs, and n epochs read it
floor(n r) or ceil(n r) times. Example: f = 0.4 reads h in [0.6, 1), then [0.2, 0.6), then [0, 0.2) and [0.8, 1).

Pass k occupies the epoch from k / r to (k + 1) / r. So the shares hold throughout the epoch, and the copies of a clip
are in different passes. All of this depends on the ids, the seed and the epoch only, so that any process can go on at
any position. Lhotse's `CutSet.mux` draws members at random from a state that the position does not give. Exact resuming
on another number of ranks would have to read all audio metadata again.
"""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from arkasr.config.schema import DataConfig
from arkasr.data.epochs import Keep, Manifest
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.mix import leaves, read_mix
from arkasr.utils.console import length_text, log

ONE = 2**64  # the value 1 of fractions and hashes, which are whole numbers so that no epoch rounds them


def turn(name: str) -> int:
    """Hash an id: the place of a clip in the rotation.

    Args:
        name: The id.

    Returns:
        A number from 0 to 2^64 - 1.
    """
    # not the hash of data.hours, which would select the same clips in every epoch
    return int.from_bytes(hashlib.sha256(f"turn {name}".encode()).digest()[:8])


def rotation(fraction: float, epoch: int) -> Keep:
    """Select a fraction of the clips, in every epoch another part, see the module docstring.

    Args:
        fraction: The fraction, at least 0 and below 1.
        epoch: Number of the epoch, from 0.

    Returns:
        A function that decides by the `turn` of a clip.
    """
    part = round(fraction * ONE)
    start = epoch * part % ONE
    return lambda place: (place + start) % ONE + part >= ONE


@dataclass(frozen=True)
class Part:
    """A manifest of the mix and its rate.

    Attributes:
        manifest: Its clips.
        rate: How often an epoch reads it, above 0.
    """

    manifest: Manifest
    rate: float

    @property
    def passes(self) -> int:
        """Number of passes in an epoch, including the one over a fraction."""
        return math.ceil(self.rate)


class MixedManifest:
    """The clips of several manifests. A shard is one pass over one shard of a manifest.

    Args:
        parts: The manifests and their rates.
        epoch: Number of the epoch that `read` reads.

    Attributes:
        num_shards: Number of shards.
    """

    def __init__(self, parts: Sequence[Part], epoch: int = 0):
        self.parts, self._epoch = parts, epoch
        self._passes = [(part, number) for part in parts for number in range(part.passes)]
        self._ends = list(accumulate(part.manifest.num_shards for part, _ in self._passes))
        self.num_shards = self._ends[-1]

    def read(self, shard: int, line: int, keep: Keep | None = None) -> Iterator[tuple[int, LazyCut]]:
        """See `Manifest.read`. `keep` is not used."""
        number = bisect_right(self._ends, shard)
        part, repeat = self._passes[number]
        own = shard - (self._ends[number - 1] if number else 0)
        fraction = part.rate - repeat
        select = rotation(fraction, self._epoch) if fraction < 1 else None
        for place, clip in part.manifest.read(own, line, select):
            yield place, clip._replace(suffix=f"{clip.suffix}_rep{repeat}") if repeat else clip

    def epoch(self, seed: int, number: int) -> tuple[MixedManifest, list[int]]:
        """See `Manifest.epoch`."""
        rng = random.Random(f"mix {seed} {number}")
        places = [
            (repeat + rng.random() * min(1.0, part.rate - repeat)) / part.rate
            for part, repeat in self._passes
            for _ in range(part.manifest.num_shards)
        ]
        return MixedManifest(self.parts, number), sorted(range(self.num_shards), key=places.__getitem__)

    def seconds(self, exact: bool = True) -> float:
        """See `Manifest.seconds`. The clips of each epoch together have about this duration."""
        return math.fsum(part.rate * part.manifest.seconds(exact) for part in self.parts)


def open_mix(config: DataConfig, open_one: Callable[[DataConfig, str], Manifest]) -> MixedManifest:
    """Open the members of a mix. Each is held in memory or read line by line by its own size.

    Args:
        config: The section `data`. `hours` is divided in proportion to the members' hours.
        open_one: Opens one manifest, whose clips get ids with a prefix.

    Returns:
        The mix.

    Raises:
        UserError: See `arkasr.data.mix.read_mix` and `arkasr.data.training_cuts.open_manifest`.
    """
    members, found = read_mix(config.train), leaves(config.train)
    opened = [open_one(replace(config, train=leaf.path, hours=0.0), leaf.prefix) for leaf in found]
    weights = {member.name: member.weight for member in members if member.weight}
    if not weights and not config.hours:
        return MixedManifest([Part(manifest, 1.0) for manifest in opened])
    seconds = [manifest.seconds(False) for manifest in opened]
    if config.hours:
        share = config.hours / math.fsum(seconds)
        limited = [replace(config, train=leaf.path, hours=own * share) for leaf, own in zip(found, seconds)]
        opened = [open_one(settings, leaf.prefix) for settings, leaf in zip(limited, found)]
    hours = {member.name: 0.0 for member in members}
    for leaf, own in zip(found, seconds):
        hours[leaf.member] += own / 3600
    rate = rates(weights or hours, hours)
    total = math.fsum(hours.values())
    log(f"{config.train}: " + ", ".join(_share(name, hours[name], rate[name], total) for name in hours))
    return MixedManifest([Part(manifest, rate[leaf.member]) for manifest, leaf in zip(opened, found)])


def _share(name: str, hours: float, rate: float, total: float) -> str:
    share, length = 100 * rate * hours / total, length_text(hours)
    return f"{name} {share:.1f} % of the audio ({length}, read {rate:g} times per epoch)"


def rates(weights: Mapping[str, float], hours: Mapping[str, float]) -> dict[str, float]:
    """Compute how often an epoch reads each member.

    Args:
        weights: Weight of each member, above 0.
        hours: Audio of each member, above 0.

    Returns:
        The rates by name, to 6 digits. An epoch with the hours of all members has the shares of the weights.
    """
    length, total = math.fsum(hours.values()), math.fsum(weights.values())
    return {name: float(f"{weights[name] / total * length / own:.6g}") for name, own in hours.items()}
