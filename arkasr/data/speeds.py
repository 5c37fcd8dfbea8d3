"""Speed perturbation: at which speed a clip is read (Ko et al. 2015, doi 10.21437/Interspeech.2015-711).

The speed of a clip depends on the seed, the epoch and its place in the manifest only. So every process that deals
batches knows how long each clip will last, and a resumed run reads every clip at the same speed as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from arkasr.config.schema import AugmentConfig, DataConfig
from arkasr.data.lazy_cut import LazyCut
from arkasr.utils.console import log


class Speeds:
    """Draws the speed of each clip.

    Args:
        augment: The section `augment`.
        data: The section `data`, for the limits of length.
        seed: Seed of the run.
    """

    def __init__(self, augment: AugmentConfig, data: DataConfig, seed: int):
        self.factors, self.seed = augment.speeds, seed
        self.low, self.high = data.min_clip_seconds, data.max_clip_seconds
        self._reported = False

    def of(self, clip: LazyCut, epoch: int, place: Sequence[int]) -> LazyCut:
        """Return a clip at the speed of its place.

        Args:
            clip: The clip, at its own speed.
            epoch: Number of the epoch.
            place: Numbers that no other clip of the epoch has.

        Returns:
            The clip with `speed`, and with `seconds` at this speed. Unchanged if there are no speeds, or if the clip
            is too long or too short at each of them.
        """
        if not self.factors:
            return clip
        allowed = [factor for factor in self.factors if self.low <= clip.seconds / factor <= self.high]
        if len(allowed) < len(self.factors):
            self._report(clip, allowed)
        if not allowed:
            return clip
        name = " ".join(map(str, ("speed", self.seed, epoch, *place)))
        drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])  # uniform below 2**64
        factor = allowed[drawn * len(allowed) >> 64]
        return clip._replace(seconds=clip.seconds / factor, speed=factor)

    def _report(self, clip: LazyCut, allowed: Sequence[float]) -> None:
        """Log the first clip that is not read at all speeds."""
        if self._reported:
            return
        self._reported = True
        read_at = ", ".join(f"{factor:g}" for factor in allowed) or "its own speed only"
        log(
            f"{clip.cut().id}: lasts {clip.seconds:g} s and is read at {read_at}, as are others of its length, because "
            f"clips must last from {self.low:g} to {self.high:g} s (data.min_clip_seconds, data.max_clip_seconds)"
        )
