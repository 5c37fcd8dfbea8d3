"""SpecAugment (arXiv:1904.08779): masks in time and frequency over the log-mel features of training clips.

The policy of the paper without time warping, which its authors call the least effective part. Masks are drawn with
torch's global generator on the host, whose state checkpoints hold. So a resumed run draws the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arkasr.config.schema import AugmentConfig
from arkasr.utils.devices import to_device

FRAMES_PER_SECOND = 100  # of mel features


class SpecAugment:
    """Masks log-mel features. Each call draws new masks for each clip.

    For a clip of n frames and M mel filters:

    1. A time mask has t frames. t is a uniform whole number from 0 to the smaller one of `time_mask_seconds` and
       `time_mask_share` of the clip.
    2. It begins at a uniform frame from 0 to n - t.
    3. A frequency mask has f filters, uniform from 0 to `mel_mask_share` of M, and begins at 0 to M - f.
    4. Masks of a clip may overlap. A masked value becomes the mean of the clip's features, as in the paper, whose
       features have mean 0.

    Args:
        config: The section `augment`.
    """

    def __init__(self, config: AugmentConfig):
        self.config = config

    @classmethod
    def of(cls, config: AugmentConfig) -> SpecAugment | None:
        """Return the masks of a configuration.

        Args:
            config: The section `augment`.

        Returns:
            None if it asks for no masks.
        """
        return cls(config) if config.masks else None

    @torch.no_grad()
    def __call__(self, mel: Tensor, frames: Sequence[int]) -> Tensor:
        """Mask features. The host does not wait for the device.

        Args:
            mel: Tensor [B, M, T], float, log-mel features of B clips.
            frames: Frames of each clip, at most T. Later frames are neither masked nor counted in the mean.

        Returns:
            Tensor [B, M, T]. `mel` itself is not changed.
        """
        filters, total = mel.shape[1:]
        ends = torch.tensor(frames)
        own = torch.arange(total) < ends[:, None]  # [B, T]
        in_time, in_mel = self._time_masks(ends, total), self._mel_masks(len(frames), filters)
        own, in_time, in_mel = (to_device(mask, mel.device) for mask in (own, in_time, in_mel))
        counts = to_device(ends * filters, mel.device)
        means = (mel * own[:, None]).sum(dim=(1, 2)) / counts
        masked = (in_time[:, None] | in_mel[:, :, None]) & own[:, None]
        return torch.where(masked, means.to(mel.dtype)[:, None, None], mel)

    def _time_masks(self, ends: Tensor, total: int) -> Tensor:
        """Return bool [B, T]: frames that a mask covers."""
        config = self.config
        longest = (ends * config.time_mask_share).clamp(max=config.time_mask_seconds * FRAMES_PER_SECOND).long()
        return _covered(longest, ends, total, config.time_masks)

    def _mel_masks(self, clips: int, filters: int) -> Tensor:
        """Return bool [B, M]: filters that a mask covers."""
        sizes = torch.full((clips,), filters)
        widest = (sizes * self.config.mel_mask_share + 1e-6).long()  # 0.3375 * 80 is 27, not 26
        return _covered(widest, sizes, filters, self.config.mel_masks)


def _covered(longest: Tensor, sizes: Tensor, total: int, masks: int) -> Tensor:
    """Draw masks. longest, sizes: int64 [B], longest mask and size of each clip. Returns bool [B, total]."""
    drawn = torch.rand(2, len(sizes), masks, dtype=torch.float64)
    lengths = (drawn[0] * (longest + 1)[:, None]).long()
    starts = (drawn[1] * (sizes[:, None] - lengths + 1)).long()
    places = torch.arange(total)
    return ((places >= starts[..., None]) & (places < (starts + lengths)[..., None])).any(dim=1)
