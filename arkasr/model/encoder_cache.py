"""Cached outputs of a frozen audio encoder, in host memory or in a folder.

A clip is identified by its samples, so a clip at another speed, or another part of a recording, is another entry. Each
clip is encoded alone. Its rows therefore do not depend on the batch that needed them first, and a resumed run, whose
cache may be empty, computes the same numbers again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from arkasr.model.row_stores import InFolder, InMemory
from arkasr.utils.console import log
from arkasr.utils.devices import to_device

GIB = 2**30


class EncoderCache:
    """Rows that the adapter reads, by clip.

    Args:
        limit: Largest size of all rows in GiB. Clips beyond it are encoded each time, which is logged once.
        folder: Keeps the rows in files of this folder, which runs with the same encoder share. None: in memory.

    Attributes:
        store: The rows [N_i, D] of each clip, by a digest of its samples.
        full: Whether the limit has kept a clip out.
    """

    def __init__(self, limit: float, folder: Path | None = None):
        self.limit, self.full = limit, False
        self.store: InMemory | InFolder = InMemory() if folder is None else InFolder(folder)

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

        Raises:
            UserError: The folder cannot be written.
        """
        found = [self._rows(clip, encode) for clip in clips]
        if all(rows.device == device for rows in found):
            return torch.cat(found)
        return to_device(torch.cat([rows.cpu() for rows in found]), device)

    def _rows(self, clip: Tensor, encode: Callable[[Sequence[Tensor]], Tensor]) -> Tensor:
        name = hashlib.blake2b(clip.detach().cpu().contiguous().numpy().data, digest_size=16).hexdigest()
        if (known := self.store.get(name)) is not None:
            return known
        rows = encode([clip])
        if self.store.num_bytes + rows.nelement() * rows.element_size() > self.limit * GIB:
            self._report()
            return rows
        self.store.put(name, rows.cpu())
        return rows

    def _report(self) -> None:
        if not self.full:
            self.full = True
            log(
                f"train.cache_encoder={self.limit:g}: full with the encoder states of {len(self.store)} clips; those "
                "of other clips are computed in every step; raise it if there is more space",
                on_every_rank=True,
            )

    def release(self) -> None:
        """Free the memory of all rows, as when the encoder is trained from now on. Files are kept."""
        self.full = False
        if isinstance(self.store, InMemory):
            self.store = InMemory()


def is_frozen(module: nn.Module) -> bool:
    """Return whether no parameter of a module is trained.

    Args:
        module: The module.

    Returns:
        True if none requires a gradient.
    """
    return not any(parameter.requires_grad for parameter in module.parameters())


def encoder_digest(encoder: nn.Module, *settings: str) -> str:
    """Identify what the rows of an encoder depend on, beside the clip.

    Args:
        encoder: The audio encoder of a Hugging Face model, with whole weights.
        *settings: What else they depend on, such as the data type of the computation.

    Returns:
        A hexadecimal digest of the weights, the configuration and the settings.
    """
    digest = hashlib.blake2b(digest_size=8)
    config = encoder.config.to_dict()  # type: ignore[union-attr, operator]  # a module of transformers
    digest.update(json.dumps([type(encoder).__name__, config, settings], sort_keys=True, default=str).encode())
    for name, weight in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
