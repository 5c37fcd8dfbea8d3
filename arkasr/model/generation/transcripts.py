"""Token caps of transcripts, and the detection of loops."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.loops import ends_in_loop


def token_caps(waveforms: Sequence[Tensor], max_new_tokens: int, tokens_per_second: float) -> list[int]:
    """Return the maximum number of tokens of each transcript: min(max_new_tokens, 2 + ceil(tokens_per_second * s)).

    s is the duration in seconds. The constant 2 leaves room for one token and the stop token in the shortest clip.

    Args:
        waveforms: B tensors [num_samples] at 16 kHz.
        max_new_tokens: Upper limit for all clips.
        tokens_per_second: Tokens per second of audio. 0 applies `max_new_tokens` to all clips.

    Returns:
        B numbers of tokens, the stop token included.
    """
    if tokens_per_second == 0:
        return [max_new_tokens] * len(waveforms)
    return [min(max_new_tokens, 2 + math.ceil(tokens_per_second * len(w) / SAMPLE_RATE)) for w in waveforms]


def is_looping(ids: Sequence[int], stop_ids: Collection[int] = ()) -> bool:
    """Return whether a transcript ends in a loop (see `arkasr.utils.loops.ends_in_loop`).

    Args:
        ids: Token ids of the transcript.
        stop_ids: Ids that are not part of the text. They are ignored.

    Returns:
        Whether the ids without the stop ids end in a loop.
    """
    return ends_in_loop([i for i in ids if i not in stop_ids])
