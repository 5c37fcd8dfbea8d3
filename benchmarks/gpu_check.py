"""Checks of `gpu.py`: whether two paths give the same losses and the same transcripts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from arkasr import SpeechLM
from arkasr.distributions.logits import best_tokens, head_logits
from arkasr.model.generation import Generation

CHUNK = 256  # positions whose logits are in memory at the same time
# Largest relative difference of two losses, by the dtype of the computation. bfloat16 keeps 8 bits: 0.4 % per value,
# less in a mean over positions.
LOSSES = {"float32": 1e-4, "bfloat16": 1e-3}
# A token is tied with the best one if its logit is lower by at most this many standard deviations of the logits.
# Rounding in bfloat16 gave gaps up to 0.04 at the published sizes on a CPU. A GPU may also add in bfloat16. A random
# token lies several standard deviations lower.
TIES = {"float32": 1e-3, "bfloat16": 0.2}
AGAINST_FLOAT32 = 0.5  # the same for a bfloat16 transcript and the float32 model: all layers round differently


def same_losses(first: float, second: float, dtype: str) -> str:
    """Compare the losses of two paths.

    Args:
        first: Loss of the reference.
        second: Loss of the other path.
        dtype: Key of `LOSSES`.

    Returns:
        A result for the table. It begins with "equal" or "DIFFERS".
    """
    gap = abs(first - second) / max(abs(first), 1e-12)
    verdict = "equal" if gap <= LOSSES[dtype] else "DIFFERS"  # also if one of them is not a number
    return f"{verdict}: losses {first:.6g} and {second:.6g}, {gap:.1e} apart, allowed {LOSSES[dtype]:.0e}"


def complete(lm: SpeechLM, found: Generation, caps: Sequence[int]) -> bool:
    """Check that every transcript ends with a stop id, or is as long as its token cap allows.

    Args:
        lm: The model.
        found: B transcripts.
        caps: B largest numbers of tokens.
    """
    ends = [bool(ids) and ids[-1] in lm.stop_ids for ids in found.ids]
    full = [end or len(ids) == cap for end, ids, cap in zip(ends, found.ids, caps, strict=True)]
    early = any(token in lm.stop_ids for ids in found.ids for token in ids[:-1])
    return all(full) and not early and found.stopped == ends and len(found.topk) == sum(map(len, found.ids))


@torch.no_grad()
def worst_gap(lm: SpeechLM, prompts: Sequence[Tensor], caps: Sequence[int], found: Generation) -> float:
    """Check greedy transcripts against one forward pass without a cache (teacher forcing).

    Args:
        lm: The model.
        prompts: B tensors [S_i, H].
        caps: B largest numbers of tokens, at least 1.
        found: Transcripts of these prompts, and their top k.

    Returns:
        How far a chosen token lies below the best token, or a token of the top k below the k-th best one, at most, in
        standard deviations of the logits. Infinite if a transcript is not complete, or a top k holds a token twice.
    """
    if not complete(lm, found, caps):
        return math.inf
    states, worst, k = lm.transcript_states(prompts, found.ids), 0.0, found.topk.shape[1]
    ids = torch.tensor([i for row in found.ids for i in row], device=states.device)
    for rows in (slice(start, start + CHUNK) for start in range(0, len(ids), CHUNK)):
        logits, top = head_logits(states[rows], lm.head), found.topk[rows]
        spread = logits[:, ~lm.blocked].std(-1)
        best = best_tokens(logits.masked_fill_(lm.blocked, -torch.inf), max(1, k))[1]
        gaps = [best[:, 0] - logits.gather(-1, ids[rows, None])[:, 0]]
        if k:
            gaps.append(best[:, k - 1] - logits.gather(-1, top).amin(-1))
            if bool((top.sort(-1).values.diff(dim=-1) == 0).any()):
                return math.inf
        worst = max(worst, *(float((gap / spread).max()) for gap in gaps))
    return worst


def same_transcripts(base: Generation, other: Generation, gap: float, dtype: str, allowed: float | None = None) -> str:
    """Compare the transcripts of two paths for the same prompts.

    They are equal up to ties if they are identical, or if every token of the other path is the best one or tied with
    it, given the tokens before.

    Args:
        base: Transcripts of the reference.
        other: Transcripts of the other path.
        gap: Result of `worst_gap` for the other path.
        dtype: Key of `TIES`.
        allowed: Largest gap of a tie. Default: that of the dtype.

    Returns:
        A result for the table. It begins with "equal" or "DIFFERS".
    """
    allowed = TIES[dtype] if allowed is None else allowed
    rows = list(zip(base.ids, other.ids, strict=False))
    same = sum(a == b for a, b in rows)
    counts = f"{same} of {len(base.ids)} transcripts identical, largest gap {gap:.2g}, allowed {allowed:.2g}"
    if len(base.ids) != len(other.ids) or not gap <= allowed:
        return f"DIFFERS: {counts}"
    return f"equal: {counts}" if same == len(rows) else f"equal up to ties: {counts}"
