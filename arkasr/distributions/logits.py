"""Logits over large vocabularies: computed from the head in float32, and read with few passes over [P, V]."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 8192  # tokens whose rows of a 16-bit head are held in float32 at one time
BLOCK = 128  # tokens per block in best_tokens, which compares the maxima of blocks first
ELEMENTS = {"cpu": 2**19, "cuda": 2**25}  # logits read at one time: 2 MiB, which fits a core's cache, or 128 MiB


@torch.no_grad()
def head_logits(states: Tensor, weight: Tensor) -> Tensor:
    """Compute logits in float32, without gradient.

    Products of 16-bit numbers are accumulated and kept in float32. A linear layer would round the logits to bfloat16,
    which changes logits near 20 by up to 0.06. The head is never copied to float32 as a whole.

    Args:
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.

    Returns:
        Tensor [P, V], float32.
    """
    with torch.autocast(states.device.type, enabled=False):
        if weight.dtype.itemsize != 2:
            return states.float() @ weight.float().T
        if states.is_cuda:
            return torch.mm(states.to(weight.dtype), weight.T, out_dtype=torch.float32)  # requires equal input dtypes
        logits = torch.empty(len(states), len(weight), device=states.device)
        for start in range(0, len(weight), COLUMNS):
            span = slice(start, start + COLUMNS)
            torch.mm(states.float(), weight[span].float().T, out=logits[:, span])
        return logits


def best_tokens(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k best tokens, like `torch.topk` but faster for large vocabularies.

    The k best tokens are always within the k blocks that have the highest maxima. Only those blocks are sorted. The
    order of equal logits is unspecified, as in `torch.topk`.

    Args:
        logits: Tensor [P, V], floating.
        k: Number of tokens per position.

    Returns:
        Ids (int64) and logits, both [P, min(k, V)], best first.
    """
    count, size = logits.shape[-1] // BLOCK, logits.shape[-1]
    if count < 8 * k:  # the blocks would hold most of the vocabulary
        best = logits.topk(min(k, size))
        return best.indices, best.values
    blocks = logits[:, : count * BLOCK].view(len(logits), count, BLOCK).amax(-1).topk(k).indices
    inside = torch.arange(BLOCK, device=logits.device)
    rest = torch.arange(count * BLOCK, size, device=logits.device).expand(len(logits), -1)
    ids = torch.cat([(blocks[:, :, None] * BLOCK + inside).flatten(1), rest], dim=1)
    best = logits.gather(-1, ids).topk(k)
    return ids.gather(-1, best.indices), best.values


def row_spans(logits: Tensor) -> list[slice]:
    """Split the rows into spans of at most ELEMENTS logits, but at least one row.

    Args:
        logits: Tensor [P, V].

    Returns:
        Consecutive slices that cover all P rows.
    """
    size = max(1, ELEMENTS["cuda" if logits.is_cuda else "cpu"] // max(1, logits.shape[-1]))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def log_norm(logits: Tensor) -> Tensor:
    """Return the logsumexp of each row without allocating a second table [P, V].

    Args:
        logits: Tensor [P, V], floating.

    Returns:
        Tensor [P, 1].
    """
    return torch.cat([logits[rows].logsumexp(-1, keepdim=True) for rows in row_spans(logits) or [slice(0)]])
