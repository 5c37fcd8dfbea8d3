"""Preallocated keys and values, in the form in which transformers' decoders read and write a cache.

Shapes: B transcripts, h key-value heads, L slots per transcript, d head size, S positions of the longest prompt.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Slots:
    """Where the present tokens are written, and how far attention reads. All layers of a cache share it.

    Token j of a transcript has slot j of its row. A prompt starts at slot 0, and what is behind its end is overwritten
    by the transcript before attention reads it.

    Args:
        rows: B.
        length: L.
        device: Device of the cache.

    Attributes:
        position: Tensor [B], int64, slot of the token that each row reads next.
        places: Tensor [L], int64, 0 to L - 1.
        span: Number of slots that attention reads. 0 while the prompts are read.
        full: Whether every row has a token in each of these slots.
    """

    def __init__(self, rows: int, length: int, device: torch.device):
        self.position = torch.zeros(rows, dtype=torch.long, device=device)
        self.places = torch.arange(length, device=device)
        self.span, self.full = 0, False

    def mask(self) -> Tensor:
        """Return which of the first `span` slots are read, bool [B, 1, 1, span]."""
        return (self.places[: self.span] <= self.position[:, None])[:, None, None]


class LayerCache(CacheLayerMixin):
    """Keys and values of one layer.

    Args:
        keys: Tensor [B, h, L, d].
        values: Tensor [B, h, L, d].
        slots: The slots, which all layers share.
    """

    def __init__(self, keys: Tensor, values: Tensor, slots: Slots):
        super().__init__()
        self.keys, self.values, self.slots, self.is_initialized = keys, values, slots, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing. The memory is there from the start.

        Args:
            key_states: Ignored.
            value_states: Ignored.
        """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values of a prompt or of one token.

        Args:
            key_states: Tensor [B, h, S, d] of prompts, or [B, h, 1, d] of one token per row.
            value_states: The values, of the same shape.
            *args: Ignored.
            **kwargs: Ignored.

        Returns:
            The keys and values to attend to: those of the prompt, or those of the first `span` slots.
        """
        assert self.keys is not None and self.values is not None
        span = self.slots.span
        if span == 0:
            self.keys[:, :, : key_states.shape[2]] = key_states
            self.values[:, :, : key_states.shape[2]] = value_states
            return key_states, value_states
        index = self.slots.position[:, None, None, None].expand_as(key_states)
        self.keys.scatter_(2, index, key_states.to(self.keys.dtype))  # under autocast both may have another dtype
        self.values.scatter_(2, index, value_states.to(self.values.dtype))
        return self.keys[:, :, :span], self.values[:, :, :span]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return number and offset of the keys for the mask of a prompt. The step passes its own mask.

        Args:
            query_length: Number of positions.

        Returns:
            The number of keys, and 0.
        """
        return query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens before the prompt, which is 0."""
        return 0

    def get_max_length(self) -> int:
        """Return L."""
        assert self.keys is not None
        return self.keys.shape[2]


def make_cache(memory: Tensor, slots: Slots) -> Cache:
    """Return a cache over preallocated memory.

    Args:
        memory: Tensor [layers, 2, B, h, L, d]: keys and values of every layer.
        slots: Its slots.

    Returns:
        The cache, as an argument of a decoder.
    """
    return Cache(layers=[LayerCache(keys, values, slots) for keys, values in memory])
