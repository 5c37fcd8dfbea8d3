"""Logits over large vocabularies: formed from the head in float32, and read without passes that a table [P, V] costs."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 8192  # tokens whose rows of a 16-bit head are held in float32 at one time
BLOCK = 128  # tokens of which best_tokens looks at the best one first
ELEMENTS = {"cpu": 2**19, "cuda": 2**25}  # logits read at one time: 2 MiB, in a core's cache, or 128 MiB


@torch.no_grad()
def head_logits(states: Tensor, weight: Tensor) -> Tensor:
    """Form logits float32 [P, V], without gradient, from states [P, H] and the head's weight [V, H].

    Products of 16-bit numbers are summed and kept in float32: rounded to bfloat16, as a linear layer returns them,
    logits near 20 would be wrong by up to 0.06. No float32 copy of the whole head is made.
    """
    with torch.autocast(states.device.type, enabled=False):
        if weight.dtype.itemsize != 2:
            return states.float() @ weight.float().T
        if states.is_cuda:
            return torch.mm(states.to(weight.dtype), weight.T, out_dtype=torch.float32)  # it takes one dtype
        logits = torch.empty(len(states), len(weight), device=states.device)
        for start in range(0, len(weight), COLUMNS):
            span = slice(start, start + COLUMNS)
            torch.mm(states.float(), weight[span].float().T, out=logits[:, span])
        return logits


def best_tokens(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return ids and logits [P, min(k, V)] of the best tokens of logits [P, V], best first: as `topk`, but faster.

    The k best tokens stand in the k blocks whose own best are highest, so that only those are sorted. Of equal logits
    any may be chosen, as by `topk`.
    """
    count, size = logits.shape[-1] // BLOCK, logits.shape[-1]
    if count < 8 * k:  # little would be left out
        best = logits.topk(min(k, size))
        return best.indices, best.values
    blocks = logits[:, : count * BLOCK].unflatten(-1, (count, BLOCK)).amax(-1).topk(k).indices
    inside = torch.arange(BLOCK, device=logits.device)
    rest = torch.arange(count * BLOCK, size, device=logits.device).expand(len(logits), -1)
    ids = torch.cat([(blocks[:, :, None] * BLOCK + inside).flatten(1), rest], dim=1)
    best = logits.gather(-1, ids).topk(k)
    return ids.gather(-1, best.indices), best.values


def row_spans(logits: Tensor) -> list[slice]:
    """Part the rows of logits [P, V] so that no more than ELEMENTS of them, or one row, are read at one time."""
    size = max(1, ELEMENTS["cuda" if logits.is_cuda else "cpu"] // max(1, logits.shape[-1]))
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def log_norm(logits: Tensor) -> Tensor:
    """Return logsumexp [P, 1] of logits [P, V]: no second table [P, V] is made."""
    return torch.cat([logits[rows].logsumexp(-1, keepdim=True) for rows in row_spans(logits) or [slice(0)]])
