"""The frames of the units of a text, by the likeliest path through the classes of a CTC head (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from arkasr.model.generation.stitching import joined


class Aligned(NamedTuple):
    """The place of each unit of a text.

    Attributes:
        frames: First frame, and frame after the last one, per unit. Units without tokens have no frames between them.
        score: Log-probability of the path.
    """

    frames: list[tuple[int, int]]
    score: float


def align(scores: Tensor, parts: Sequence[str], spaced: bool, tokenizer: Tokenizer) -> Aligned | None:
    """Align the units of a text with frames.

    Args:
        scores: float32 [T, V + 1], log-probabilities of the classes of each frame, on the CPU. The last one is blank.
        parts: Units (see `stitching.units`).
        spaced: See `stitching.units`.
        tokenizer: The tokens of the head.

    Returns:
        Their frames. None if the text has no tokens, or more tokens than there are frames.
    """
    encoding = tokenizer.encode(joined(parts, spaced), add_special_tokens=False)
    ids, owners = encoding.ids, _owners(encoding.offsets, parts, spaced)
    needed = len(ids) + sum(a == b for a, b in pairwise(ids))  # equal neighbours need a blank between them
    if not ids or needed > len(scores):
        return None
    spans, score = _token_frames(scores, ids)
    frames, last = [], 0
    for unit in range(len(parts)):
        own = [span for span, owner in zip(spans, owners) if owner == unit]
        frames.append((own[0][0], own[-1][1]) if own else (last, last))
        last = frames[-1][1]
    return Aligned(frames, score)


def _token_frames(scores: Tensor, ids: Sequence[int]) -> tuple[list[tuple[int, int]], float]:
    from torchaudio.functional import forced_align, merge_tokens

    blank = scores.shape[-1] - 1
    path, along = forced_align(scores[None], torch.tensor([ids], dtype=torch.int32), blank=blank)
    spans = merge_tokens(path[0], along[0], blank=blank)
    return [(span.start, span.end) for span in spans], float(along.sum())


def _owners(offsets: Sequence[tuple[int, int]], parts: Sequence[str], spaced: bool) -> list[int]:
    """Return the unit of each token, by the position of its last character in the text of the units."""
    unit_at: list[int] = []
    text, at = joined(parts, spaced), 0
    for unit, part in enumerate(parts):
        at = text.index(part.strip(), at) + len(part.strip())
        unit_at += [unit] * (at - len(unit_at))
    return [unit_at[min(max(end - 1, start), len(unit_at) - 1)] for start, end in offsets]
