"""The student, built from transformers' GLM-ASR encoder and Qwen2; only what differs is written here."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad
from transformers import AutoModel, AutoModelForCausalLM, GlmAsrEncoder, GlmAsrForConditionalGeneration, GlmAsrModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling

from arkasr.model.configuration import ArkasrConfig


def num_audio_tokens(frames: Tensor | int, merge_factor: int = 4) -> Tensor | int:
    """Count audio tokens of `frames` mel frames: halved (rounded up), merged (rounded down), at least 1."""
    merged = (frames + 1) // 2 // merge_factor
    return merged.clamp(min=1) if isinstance(merged, Tensor) else max(merged, 1)


class ArkasrEncoder(GlmAsrEncoder):
    """GLM-ASR's encoder, which can hide what lies past a clip's end from the convolutions and from attention."""

    def forward(self, input_features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode mel [B, M, T]; `lengths` int64 [B] hides frames past them. Returns states [B, ceil(T/2), d]."""
        keep = None
        if lengths is not None:
            keep = torch.arange(input_features.shape[-1], device=lengths.device) < lengths[:, None]
        hidden = gelu(self.conv1(input_features if keep is None else input_features * keep[:, None]))
        hidden = gelu(self.conv2(hidden if keep is None else hidden * keep[:, None])).transpose(1, 2)
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rope = self.rotary_emb(hidden, position_ids=positions)
        mask = None
        if lengths is not None and bool((lengths < input_features.shape[-1]).any()):
            mask = (positions < (lengths[:, None] + 1) // 2)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, position_embeddings=rope, attention_mask=mask)
        return self.norm(hidden)


class ArkasrProjector(nn.Module):
    """The adapter: merged frames to the decoder's width by two linear layers."""

    def __init__(self, config: ArkasrConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.merge_factor * config.audio_config.hidden_size, 2 * width)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(2 * width, width)

    def forward(self, merged: Tensor) -> Tensor:
        """Project [..., merge_factor * d] to [..., hidden]."""
        return self.linear_2(self.act(self.linear_1(merged)))


class ArkasrModel(GlmAsrModel):
    """Encoder, adapter and Qwen2 decoder without a head."""

    config: ArkasrConfig

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrModel, self).__init__(config)
        self.audio_tower = ArkasrEncoder(config.audio_config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.multi_modal_projector = ArkasrProjector(config)
        self.post_init()

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Encode mel [B, M, T] with mask [B, T]; `pooler_output` [sum(N_i), hidden]: all clips' tokens in order."""
        lengths = input_features_mask.sum(-1)
        states = self.audio_tower(input_features, lengths if self.config.mask_padding else None)
        factor = self.config.merge_factor
        if self.config.mask_padding:  # a clip under 4 states is completed with zeros, whatever the batch holds there
            frames = torch.arange(states.shape[1], device=lengths.device)
            states = states * (frames < (lengths[:, None] + 1) // 2)[..., None]
        states = pad(states, (0, 0, 0, -states.shape[1] % factor))
        merged = states.reshape(states.shape[0], -1, factor * states.shape[-1])
        counts = num_audio_tokens(lengths, factor)
        valid = torch.arange(merged.shape[1], device=counts.device) < counts[:, None]
        return BaseModelOutputWithPooling(
            last_hidden_state=states, pooler_output=self.multi_modal_projector(merged[valid])
        )


class ArkasrForConditionalGeneration(GlmAsrForConditionalGeneration):
    """Ark-ASR with its head: audio tokens stand in the prompt where `config.audio_token_id` stands in `input_ids`."""

    config_class = ArkasrConfig
    config: ArkasrConfig

    def __init__(self, config: ArkasrConfig):
        super(GlmAsrForConditionalGeneration, self).__init__(config)
        self.model = ArkasrModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()


AutoModelForCausalLM.register(ArkasrConfig, ArkasrForConditionalGeneration)
