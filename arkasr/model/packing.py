"""Attention windows of different lengths as packed rows, for encoders without a causal mask.

Rows of all windows lie one after the other in a tensor [N, d], so linear layers, norms and convolutions see one batch.
Windows of similar length form a group, which is one attention call [windows, heads, length, head size]:

1. A group of equal windows has no padding and no mask, so that torch may choose its flash kernel.
2. In any other group, shorter windows are padded to the longest, and a mask hides their padding.

All indices are computed on the host from the lengths, and copied without waiting for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from arkasr.utils.devices import to_device

PACKED = "arkasr_packed"  # name of the attention implementation in transformers
ROWS_PER_GROUP = 128  # padding that is cheaper than one more group
ROWS_PER_CALL = {"cpu": 16, "cuda": 512}  # padding that is cheaper than the calls of one more group in each layer
MASKED = 0.1  # additional cost of a row in a group with a mask, which rules out the flash kernel


@dataclass(frozen=True)
class Group:
    """Windows of one attention call.

    Attributes:
        windows: Number of windows W.
        length: Rows of each window, padding included.
        mask: Added to the scores: [W, 1, 1, length], 0 or minus infinity. None if no window is padded.
    """

    windows: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True)
class Packing:
    """The order of packed rows. The arrays are int64, on the host.

    Attributes:
        groups: The groups, in the order of the rows.
        sources: [N], the row before packing that each packed row holds.
        positions: [N], the position of each row in its window. Padding repeats the last one.
        real: [sum of lengths], the packed rows without padding, window after window in the order given.
    """

    groups: tuple[Group, ...]
    sources: np.ndarray
    positions: np.ndarray
    real: np.ndarray


def group_lengths(lengths: Sequence[int], masked: float = MASKED, per_group: int = ROWS_PER_GROUP) -> np.ndarray:
    """Choose the padded lengths of groups, so that their cost is the lowest.

    The cost is the number of rows with padding, `masked` more per row of a group with padding, and `per_group` per
    group.

    Args:
        lengths: Rows of each window, at least 1 each.
        masked: Additional cost of a row in a group with padding, 0 if padding needs no mask.
        per_group: Rows that cost as much as one more group.

    Returns:
        Ascending lengths. A window belongs to the first group that is long enough.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    best, first = np.zeros(len(distinct) + 1), []
    for last, length in enumerate(distinct):  # best[i]: cost of the i shortest lengths
        rows = (before[last + 1] - before[: last + 1]) * length
        padded = np.arange(last + 1) < last
        costs = best[: last + 1] + rows * (1 + masked * padded) + per_group
        first.append(int(costs.argmin()))
        best[last + 1] = costs.min()
    chosen, end = [], len(distinct)
    while end:
        chosen.append(distinct[end - 1])
        end = first[end - 1]
    return np.array(chosen[::-1])


def packed(lengths: Sequence[int], starts: Sequence[int], device: torch.device, dtype: torch.dtype) -> Packing:
    """Arrange the rows of attention windows.

    Args:
        lengths: Rows of each window, at least 1 each.
        starts: The row before packing that each window begins at.
        device: Device of the states.
        dtype: dtype of the states.

    Returns:
        The arrangement. Its masks are on the device.
    """
    sizes, offsets = np.asarray(lengths), np.asarray(starts)
    limits = group_lengths(lengths, per_group=ROWS_PER_CALL.get(device.type, ROWS_PER_GROUP))
    group = np.searchsorted(limits, sizes)
    order = np.argsort(group, kind="stable")
    window, inside = _ranges(order, limits[group[order]])
    position = np.minimum(inside, sizes[window] - 1)
    begin = np.empty_like(sizes)  # packed row that each window begins at
    begin[order] = np.cumsum(limits[group[order]]) - limits[group[order]]
    of, within = _ranges(np.arange(len(sizes)), sizes)
    groups = []
    for i, limit in enumerate(limits.tolist()):
        kept = sizes[group == i]
        mask = _mask(to_device(kept, device), limit, dtype) if (kept < limit).any() else None
        groups.append(Group(len(kept), limit, mask))
    return Packing(tuple(groups), offsets[window] + position, position, begin[of] + within)


def take(rows: Tensor, index: np.ndarray) -> Tensor:
    """Select rows by an index on the host. All rows in their order are returned without a copy.

    Args:
        rows: Tensor [N, ...].
        index: int64 [K].

    Returns:
        Tensor [K, ...].
    """
    if len(index) == len(rows) and (index == np.arange(len(rows))).all():
        return rows
    return rows.index_select(0, to_device(index, rows.device))


def _ranges(owners: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return owner and position of each row of ranges with these sizes."""
    begins = np.cumsum(sizes) - sizes
    return np.repeat(owners, sizes), np.arange(sizes.sum()) - np.repeat(begins, sizes)


def _mask(sizes: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Return the mask of a group, a view of rows of 8 n numbers, which torch's kernel would otherwise copy again."""
    columns = torch.arange(-(-length // 8) * 8, device=sizes.device)
    mask = torch.zeros(len(sizes), len(columns), device=sizes.device, dtype=dtype)
    return mask.masked_fill_(columns >= sizes[:, None], -torch.inf)[:, None, None, :length]


def use_packed_attention(config: PretrainedConfig) -> None:
    """Make an encoder attend within packed windows wherever its layers receive `packing`.

    Without `packing` the attention is that of transformers' "sdpa".

    Args:
        config: Configuration of the encoder, changed in place. Files do not store the attention implementation.
    """
    if config._attn_implementation != PACKED:
        config._attn_implementation = PACKED


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each window of packed rows, as an attention implementation of transformers.

    Args:
        module: The attention layer.
        query: Tensor [1, heads, N, head size].
        key: As `query`.
        value: As `query`.
        attention_mask: Ignored if there is a `packing`.
        packing: The windows. None calls transformers' "sdpa" with the same arguments.
        **kwargs: See `sdpa_attention_forward`.

    Returns:
        Tensor [1, N, heads, head size], and None for the weights.
    """
    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    sizes = [group.windows * group.length for group in packing.groups]
    outputs = []
    for group, *parts in zip(packing.groups, *(x[0].split(sizes, dim=1) for x in (query, key, value))):
        q, k, v = (part.unflatten(1, (group.windows, group.length)).transpose(0, 1) for part in parts)
        states, _ = sdpa_attention_forward(module, q, k, v, group.mask, **kwargs)
        outputs.append(states.flatten(0, 1))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None], None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
