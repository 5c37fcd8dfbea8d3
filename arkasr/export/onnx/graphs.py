"""What the ONNX files of Ark-ASR compute, as torch modules that `torch.export` can trace.

Shapes: B clips, M mel filters, T mel frames, N = max of the numbers of audio tokens, S new tokens per clip, P cached
positions, K positions whose logits are read, H the decoder's hidden size, V vocabulary size, G key-value heads of size
D, L decoder layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache

from arkasr.errors import UserError
from arkasr.model.generation import cache_argument
from arkasr.model.log_mel import HOP, N_FFT, mel_filters

FULL = "full_attention"


class FeaturesGraph(nn.Module):
    """Log-mel features of one clip, as `log_mel.log_mel` computes them.

    Args:
        num_mel: Number of mel filters M.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, num_mel: int):
        super().__init__()
        self.register_buffer("window", torch.hann_window(N_FFT))
        self.register_buffer("filters", mel_filters(num_mel, torch.device("cpu")).T.contiguous())

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features.

        Args:
            waveform: Tensor [n], float32 at 16 kHz, at least 201 samples.

        Returns:
            Tensor [1, M, floor(n / 160)].
        """
        reach, frames = N_FFT // 2, waveform.shape[0] // HOP
        edged = pad(waveform[None], (reach, reach), mode="reflect")
        spectrum = torch.stft(edged, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        parts = torch.view_as_real(spectrum)[:, :, :frames]
        log = (self.filters @ parts.square().sum(-1)).clamp(min=1e-10).log10()
        return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class EncoderGraph(nn.Module):
    """Encoder and adapter.

    Args:
        hf: An `ArkasrForConditionalGeneration`.
    """

    def __init__(self, hf: Any):
        super().__init__()
        self.model = hf.model

    def forward(self, input_features: Tensor, input_features_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the audio embeddings of B clips.

        Args:
            input_features: Tensor [B, M, T], float32.
            input_features_mask: Tensor [B, T], int64, 1 in the frames of the clip and 0 in padding.

        Returns:
            Embeddings [B, N, H], and the number of audio tokens of each clip [B], int64. Later rows are padding.
        """
        _, rows, counts = self.model.padded_rows(input_features, input_features_mask)
        return rows, counts


class DecoderGraph(nn.Module):
    """Decoder and output head, for the prompt and for each later token.

    Args:
        hf: An `ArkasrForConditionalGeneration`.

    Raises:
        UserError: A layer of the decoder has sliding attention.
    """

    def __init__(self, hf: Any):
        super().__init__()
        self.decoder, self.head = hf.model.language_model, hf.lm_head
        self.audio_token_id = hf.config.audio_token_id
        kinds = sorted({*self.decoder.config.layer_types} - {FULL})
        if kinds:
            raise UserError(
                f"text_config.layer_types {kinds[0]}: --onnx exports decoders with {FULL} only; use such a model"
            )

    def forward(
        self, input_ids: Tensor, audio_embeds: Tensor, attention_mask: Tensor, logits_at: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute logits and the new cache.

        Args:
            input_ids: Tensor [B, S], int64. `config.audio_token_id` marks where rows of `audio_embeds` go, in order.
            audio_embeds: Tensor [B, N, H]. N is 0 after the prompt.
            attention_mask: Tensor [B, P + S], int64, 0 where a prompt was padded on the left.
            logits_at: Tensor [K], int64, positions among the S tokens. -1 is the last one.
            past: 2 L tensors [B, G, P, D], keys and values of each layer. P is 0 for the prompt.

        Returns:
            Logits [B, K, V], and 2 L tensors [B, G, P + S, D].
        """
        new = input_ids.shape[1]
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -new:]
        cache: Any = DynamicCache(list(zip(past[::2], past[1::2])))
        states = self.decoder(
            inputs_embeds=self._embeddings(input_ids, audio_embeds),
            attention_mask={FULL: _causal_mask(attention_mask, new, audio_embeds.dtype)},
            position_ids=positions,
            use_cache=True,
            **{cache_argument(self.decoder): cache},
        ).last_hidden_state
        present = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return self.head(states[:, logits_at]), present

    def _embeddings(self, input_ids: Tensor, audio_embeds: Tensor) -> Tensor:
        embeds = self.decoder.embed_tokens(input_ids)
        rows = pad(audio_embeds, (0, 0, 0, 1))  # a row to point to where there is no audio
        is_audio = input_ids == self.audio_token_id
        place = (is_audio.cumsum(-1) - 1).clamp(min=0)
        audio = rows.gather(1, place[..., None].expand(-1, -1, rows.shape[-1]))
        return torch.where(is_audio[..., None], audio, embeds)


def _causal_mask(attention_mask: Tensor, new: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to the scores: [B, 1, S, P + S], 0 or the lowest number.

    Minus infinity would make the states of padding NaN, which no mask hides from later layers.
    """
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    visible = (columns <= columns[-new:, None]) & (attention_mask[:, None] > 0)
    return torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]
