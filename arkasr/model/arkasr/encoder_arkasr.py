"""The student's audio encoder: transformers' GLM-ASR encoder with masked padding, on padded or on packed clips.

`ArkasrEncoder.forward` takes padded batches and lengths on the device, as the classes of transformers do.
`ArkasrEncoder.packed` takes lengths on the host, computes little padding and reads nothing from the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import GlmAsrEncoder
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.whisper.modeling_whisper import sinusoids
from transformers.utils.output_capturing import capture_outputs

from arkasr.errors import ClipTooLongError
from arkasr.model.arkasr.configuration_arkasr import LEARNED, ArkasrEncoderConfig
from arkasr.model.packing import packed, take, use_packed_attention
from arkasr.utils.devices import to_device

STATES_PER_SECOND = 50  # two mel frames of 10 ms each
FLOAT16_LIMIT = torch.finfo(torch.float16).max - 1000


class ArkasrEncoder(GlmAsrEncoder):
    """GLM-ASR's encoder with an optional mask, which hides padding from the convolutions and from attention.

    With `config.positions == "learned"` it computes what Whisper's encoder computes.

    Args:
        config: Configuration of the encoder.
    """

    config_class = ArkasrEncoderConfig
    config: ArkasrEncoderConfig

    def __init__(self, config: ArkasrEncoderConfig):
        super().__init__(config)
        self.embed_positions: nn.Embedding | None = None
        if config.positions == LEARNED:
            del self.rotary_emb
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
            self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):  # starts with sinusoids, as in Whisper: arXiv 2212.04356, section 2.2
            init.copy_(module.weight, sinusoids(*module.weight.shape))

    @capture_outputs
    def forward(
        self, input_features: Tensor, lengths: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Encode log-mel features.

        Args:
            input_features: Tensor [B, M, T] of any dtype. It is cast to the dtype of the weights.
            lengths: Tensor [B], int64, frames per clip. Later frames are masked. None masks nothing.
            **kwargs: `output_hidden_states`, `output_attentions` and `return_dict` of transformers.

        Returns:
            `last_hidden_state` [B, ceil(T/2), d], and what `kwargs` ask for.

        Raises:
            ClipTooLongError: T exceeds twice the rows of a table of learned positions.
        """
        keep, mask = None, None
        if lengths is not None:
            keep = torch.arange(input_features.shape[-1], device=lengths.device) < lengths[:, None]
        hidden = self._convolved(input_features, keep)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        self._check_length(hidden.shape[1])
        hidden, rope = self._with_positions(hidden, positions)
        if lengths is not None:  # in the format of this attention implementation, or None without padding
            mask = create_bidirectional_mask(self.config, hidden, positions < (lengths[:, None] + 1) // 2)
        return BaseModelOutputWithPooling(last_hidden_state=self._transformed(hidden, rope, attention_mask=mask))

    def packed(self, input_features: Tensor, frames: Sequence[int], mask_padding: bool) -> tuple[Tensor, np.ndarray]:
        """Encode log-mel features of clips whose lengths the host knows, without reading from the device.

        Attention is computed for groups of clips of similar length (see `packing`).

        Args:
            input_features: Tensor [B, M, T] of any dtype, 0 after the end of each clip if `mask_padding` is true.
            frames: Frames of each clip, at most T.
            mask_padding: False attends to padding.

        Returns:
            States [N, d] with padded rows, and the host index [sum of states] of the rows of all clips, clip after
            clip. Clip i has ceil(frames[i] / 2) states, or ceil(T/2) if padding is not masked.

        Raises:
            ClipTooLongError: See `forward`.
        """
        use_packed_attention(self.config)
        total = input_features.shape[-1]
        used, keep = (frames if mask_padding else [total] * len(frames)), None
        if min(used) < total:
            keep = torch.arange(total, device=input_features.device) < to_device(used, input_features.device)[:, None]
        hidden = self._convolved(input_features, keep)
        states = [(n + 1) // 2 for n in used]
        starts = range(0, hidden.shape[0] * hidden.shape[1], hidden.shape[1])
        packing = packed(states, starts, hidden.device, hidden.dtype)
        hidden = take(hidden.flatten(0, 1), packing.sources)[None]
        positions = to_device(packing.positions, hidden.device)[None]
        self._check_length(max(states))
        hidden, rope = self._with_positions(hidden, positions)
        return self._transformed(hidden, rope, packing=packing)[0], packing.real

    def _convolved(self, features: Tensor, keep: Tensor | None) -> Tensor:
        """Return states [B, ceil(T/2), d]. Where `keep` is false, the convolutions see zeros.

        The result is contiguous. All layers would otherwise compute on transposed memory, which is slow on a GPU.
        """
        hidden = features.to(self.conv1.weight.dtype)
        hidden = gelu(self.conv1(hidden if keep is None else hidden * keep[:, None]))
        hidden = gelu(self.conv2(hidden if keep is None else hidden * keep[:, None]))
        return hidden.transpose(1, 2).contiguous()

    def _transformed(self, hidden: Tensor, rope: tuple[Tensor, Tensor], **attention: Any) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=rope, **attention)
            if hidden.dtype == torch.float16:  # as published: deep layers would exceed the range of float16
                hidden = hidden.clamp(-FLOAT16_LIMIT, FLOAT16_LIMIT)
        return self.norm(hidden)

    def _check_length(self, states: int) -> None:
        rows = len(self.embed_positions.weight) if self.embed_positions is not None else states
        if states > rows:
            raise ClipTooLongError(
                f"audio of {states} encoder states, but this encoder has {rows} learned positions "
                f"({rows / STATES_PER_SECOND:g} s); use shorter clips"
            )

    def _with_positions(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return states with learned positions added, and the cosines and sines of RoPE, which then have width 0."""
        if self.embed_positions is None:
            return hidden, self.rotary_emb(hidden, position_ids=positions)
        nothing = hidden.new_empty(1, hidden.shape[1], 0)
        return hidden + self.embed_positions(positions), (nothing, nothing)
