"""The encoder of Qwen3-ASR with transformers' weights and layers, for clips whose lengths the host knows.

transformers' forward runs one attention call per window of 8 s and layer, and reads from the device once per layer.
Here windows of similar length share one call (see `arkasr.model.packing`), and nothing is read:

1. Chunks of 1 s that contain audio pass the convolutions, each alone. Chunks of padding are left out.
2. The states of a clip are split into windows of 8 s, which are packed.
3. The layers attend within each window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn.functional import gelu
from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASREncoder

from arkasr.model.packing import packed, take, use_packed_attention


def encode(tower: Qwen3ASREncoder, mel: Tensor, frames: Sequence[int]) -> Tensor:
    """Compute the encoder's states of B clips.

    Args:
        tower: The encoder.
        mel: Tensor [B, M, T], log-mel features in the dtype of the weights, with T a multiple of `2 * n_window`.
        frames: Frames of each clip, from 1 to T.

    Returns:
        Tensor [sum of states, d], clip after clip. They equal `tower(mel, mask).last_hidden_state`.
    """
    use_packed_attention(tower.config)
    states = _convolved(tower, mel, frames)
    lengths, starts = _windows(tower, frames, states.shape[1])
    packing = packed(lengths, starts, states.device, states.dtype)
    hidden = take(states.flatten(0, 1), packing.sources)
    one_part = np.array([0, len(hidden)])  # transformers' loop over windows then runs once; not a tensor, to be read
    for layer in tower.layers:
        [hidden] = layer(hidden, one_part, packing=packing)
    return tower.ln_post(take(hidden, packing.real))


def _convolved(tower: Qwen3ASREncoder, mel: Tensor, frames: Sequence[int]) -> Tensor:
    """Return the states [chunks, states per chunk, d] of all chunks with audio, clip after clip."""
    batch, num_mel, total = mel.shape
    size, per_clip = 2 * tower.n_window, total // (2 * tower.n_window)
    counts = -(-np.asarray(frames) // size)
    used = np.arange(per_clip) < counts[:, None]
    chunks = mel.unflatten(2, (per_clip, size)).transpose(1, 2).reshape(batch * per_clip, 1, num_mel, size)
    hidden = take(chunks, used.reshape(-1).nonzero()[0])
    for convolution in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        hidden = gelu(convolution(hidden))
    hidden = tower.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
    return hidden + tower.positional_embedding.positional_embedding[: hidden.shape[1]].to(hidden.dtype)


def _windows(tower: Qwen3ASREncoder, frames: Sequence[int], per_chunk: int) -> tuple[list[int], list[int]]:
    """Return the number of states of each attention window and the row of `_convolved` that it begins at."""
    size = 2 * tower.n_window
    window = tower.n_window_infer // size * per_chunk
    lengths, starts, begin = [], [], 0
    for n in frames:
        total = n // size * per_chunk + -(-(n % size) // 8)
        for first in range(0, total, window):
            lengths.append(min(window, total - first))
            starts.append(begin + first)
        begin += -(-n // size) * per_chunk
    return lengths, starts
