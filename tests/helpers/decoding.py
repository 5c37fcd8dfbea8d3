"""Prompts of a few clips, and the comparison of two generations."""

from __future__ import annotations

import torch
from tiny import waveform

SIZES = [16000, 4000, 9000, 24000, 160, 12345]


def prompts_of(lm, sizes=SIZES):
    """Return the prompts of clips of these lengths in samples."""
    with torch.no_grad():
        clips = [waveform(n, seed=i) for i, n in enumerate(sizes)]
        return lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(sizes))


def same(a, b):
    """Return whether two generations have the same ids, stop flags and top-k ids."""
    return a.ids == b.ids and a.stopped == b.stopped and torch.equal(a.topk, b.topk)
