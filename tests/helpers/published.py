"""A slow reference implementation of the published Ark-ASR in plain torch, for one clip at a time.

It follows the description of the architecture (a Whisper encoder with GLM-ASR's rotary positions, an MLP adapter,
Qwen2) and imports nothing from `arkasr.model`. `config` is the content of the published config.json. `w` holds the
tensors of the published file in the dtype of the computation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d

Weights = dict[str, Tensor]


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def _gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def _rms_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]


def _rotate_pairs(first: Tensor, second: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Rotate the points (first, second) [T, n] by the angle position * base^(-i/n), as complex numbers.

    The published code computes cosines and sines in float32 for every dtype of the model, and so does this function.
    """
    count, pairs = first.shape
    frequency = 1.0 / base ** (torch.arange(pairs) / pairs)
    angle = torch.arange(count, dtype=torch.float32)[:, None] * frequency
    point = torch.complex(first, second) * torch.complex(angle.cos().to(first.dtype), angle.sin().to(first.dtype))
    return point.real, point.imag


def rotate_interleaved(x: Tensor, part: float = 0.5) -> Tensor:
    """Rotate the pairs (2i, 2i + 1) of the first half of one head [T, D], as the encoder's RoPE does."""
    size = int(x.shape[1] * part)
    even, odd = _rotate_pairs(x[:, 0:size:2], x[:, 1:size:2], 10000.0)
    return torch.cat([torch.stack([even, odd], dim=-1).flatten(1), x[:, size:]], dim=1)


def rotate_halves(x: Tensor, base: float) -> Tensor:
    """Rotate the pairs (i, i + D/2) of one head [T, D], as Qwen2's RoPE does."""
    return torch.cat(_rotate_pairs(*x.chunk(2, dim=1), base), dim=1)


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ v


def reference_encoder_states(config: dict[str, Any], w: Weights, mel: Tensor, rotate=rotate_interleaved) -> Tensor:
    """Encode mel [M, T] into states [ceil(T/2), d], without a mask and without the final layer norm."""
    whisper, name = config["whisper_config"], "audio_encoder.whisper"
    x = mel.to(w[f"{name}.conv1.weight"].dtype)[None]
    x = _gelu(conv1d(x, w[f"{name}.conv1.weight"], w[f"{name}.conv1.bias"], padding=1))
    x = _gelu(conv1d(x, w[f"{name}.conv2.weight"], w[f"{name}.conv2.bias"], stride=2, padding=1))[0].T
    for n in range(whisper["encoder_layers"]):
        layer = f"{name}.layers.{n}"
        normed = _layer_norm(w, f"{layer}.self_attn_layer_norm", x)
        heads = [
            _linear(w, f"{layer}.self_attn.{part}_proj", normed).chunk(whisper["encoder_attention_heads"], dim=1)
            for part in "qkv"
        ]
        mixed = [_attend(rotate(q), rotate(k), v, causal=False) for q, k, v in zip(*heads)]
        x = x + _linear(w, f"{layer}.self_attn.out_proj", torch.cat(mixed, dim=1))
        normed = _layer_norm(w, f"{layer}.final_layer_norm", x)
        x = x + _linear(w, f"{layer}.fc2", _gelu(_linear(w, f"{layer}.fc1", normed)))
    return x


def reference_audio_embeddings(config: dict[str, Any], w: Weights, mel: Tensor, rotate=rotate_interleaved) -> Tensor:
    """Compute the audio embeddings [max(ceil(T/2) // 4, 1), H] of mel [M, T]."""
    factor = config["merge_factor"]
    x = _layer_norm(w, "audio_encoder.layer_norm", reference_encoder_states(config, w, mel, rotate))
    x = torch.cat([x, x.new_zeros(max(factor - len(x), 0), x.shape[1])])
    x = x[: len(x) // factor * factor].reshape(-1, factor * x.shape[1])
    return _linear(w, "audio_encoder.adapting.2", _gelu(_linear(w, "audio_encoder.adapting.0", x)))


def reference_logits(config: dict[str, Any], w: Weights, ids: list[int], audio: Tensor) -> Tensor:
    """Compute logits [S, V] of S ids, with audio embeddings [>= N, H] at their N placeholders."""
    x = w["model.embed_tokens.weight"][ids]
    places = [at for at, token in enumerate(ids) if token == config["audio_token_id"]]
    x[places] = audio[: len(places)]
    shared = config["num_attention_heads"] // config["num_key_value_heads"]
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        normed = _rms_norm(w, f"{layer}.input_layernorm", x)
        q, k, v = (_linear(w, f"{layer}.self_attn.{part}_proj", normed) for part in "qkv")
        q = q.chunk(config["num_attention_heads"], dim=1)
        k, v = (y.chunk(config["num_key_value_heads"], dim=1) for y in (k, v))
        base = config["rope_theta"]
        mixed = [
            _attend(rotate_halves(head, base), rotate_halves(k[i // shared], base), v[i // shared], True)
            for i, head in enumerate(q)
        ]
        x = x + _linear(w, f"{layer}.self_attn.o_proj", torch.cat(mixed, dim=1))
        normed = _rms_norm(w, f"{layer}.post_attention_layernorm", x)
        gate = _linear(w, f"{layer}.mlp.gate_proj", normed)
        x = x + _linear(w, f"{layer}.mlp.down_proj", gate * gate.sigmoid() * _linear(w, f"{layer}.mlp.up_proj", normed))
    return _linear(w, "lm_head", _rms_norm(w, "model.norm", x))


def reference_greedy(
    config: dict[str, Any], w: Weights, ids: list[int], audio: Tensor, blocked: list[int], cap: int
) -> list[int]:
    """Decode greedily with the allowed ids until the stop id (included) or the token cap."""
    new: list[int] = []
    while len(new) < cap and config["eos_token_id"] not in new:
        logits = reference_logits(config, w, ids + new, audio)[-1]
        logits[blocked] = -torch.inf
        new.append(int(logits.argmax()))
    return new
