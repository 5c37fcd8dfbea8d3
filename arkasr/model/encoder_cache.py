"""Cached outputs of a frozen audio encoder, in host memory.

A clip is identified by its samples, so a clip at another speed, or another part of a recording, is another entry. Each
clip is encoded alone. Its rows therefore do not depend on the batch that needed them first, and a resumed run, whose
cache is empty, computes the same numbers again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from arkasr.utils.console import log
from arkasr.utils.devices import to_device

GIB = 2**30


class EncoderCache:
    """Rows that the adapter reads, by clip.

    Args:
        limit: Largest size of all rows in GiB. Clips beyond it are encoded each time, which is logged once.

    Attributes:
        rows: The rows [N_i, D] of each clip, by a digest of its samples.
        num_bytes: Size of all rows.
        full: Whether the limit has kept a clip out.
    """

    def __init__(self, limit: float):
        self.limit = limit
        self.rows: dict[bytes, Tensor] = {}
        self.num_bytes, self.full = 0, False

    @torch.no_grad()
    def __call__(
        self, clips: Sequence[Tensor], encode: Callable[[Sequence[Tensor]], Tensor], device: torch.device
    ) -> Tensor:
        """Return the rows of clips, and encode those that are not cached.

        Args:
            clips: B waveforms [num_samples].
            encode: Returns the rows [N, D] of one clip.
            device: Device of the result.

        Returns:
            Tensor [sum(N_i), D] without gradient, clip after clip.
        """
        found = [self._rows(clip, encode) for clip in clips]
        if all(rows.device == device for rows in found):
            return torch.cat(found)
        return to_device(torch.cat([rows.cpu() for rows in found]), device)

    def _rows(self, clip: Tensor, encode: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
        name = hashlib.blake2b(clip.detach().cpu().contiguous().numpy().data, digest_size=16).digest()
        if name not in self.rows:
            rows = encode([clip])
            size = rows.nelement() * rows.element_size()
            if self.num_bytes + size > self.limit * GIB:
                self._report()
                return rows
            self.rows[name], self.num_bytes = rows.cpu(), self.num_bytes + size
        return self.rows[name]

    def _report(self) -> None:
        if not self.full:
            self.full = True
            log(
                f"train.cache_encoder={self.limit:g}: full with the encoder states of {len(self.rows)} clips; those of "
                "other clips are computed in every step; raise it if memory allows",
                on_every_rank=True,
            )

    def clear(self) -> None:
        """Forget all rows, as when the encoder is trained from now on."""
        self.rows.clear()
        self.num_bytes, self.full = 0, False


def is_frozen(module: nn.Module) -> bool:
    """Return whether no parameter of a module is trained.

    Args:
        module: The module.

    Returns:
        True if none requires a gradient.
    """
    return not any(parameter.requires_grad for parameter in module.parameters())
