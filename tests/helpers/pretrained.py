"""Tiny checkpoints of Whisper, GLM-ASR and Qwen2 with large random weights, and students assembled from them."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import ARK_SIZES, student_tokenizer
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from arkasr.config.schema import ModelConfig
from arkasr.model.build import assemble

MELS, WIDTH, HEADS, LAYERS = 16, 32, 2, 2
TEXT = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}


def with_large_weights(model, seed: int):
    """Draw weights that make attention far from uniform, with norms and biases far from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data = 0.6 * torch.randn(weight.shape, generator=generator)
    return model.eval()


def saved(model, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def whisper(seed: int = 1):
    sizes = {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": 1, "encoder_attention_heads": HEADS}
    sizes |= {
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 40,
        "num_mel_bins": MELS,
        "vocab_size": 60,
    }
    sizes |= {
        "max_source_positions": 200,
        "max_target_positions": 9,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return with_large_weights(WhisperForConditionalGeneration(WhisperConfig(**sizes, decoder_start_token_id=1)), seed)


def glm(seed: int = 2):
    audio = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = GlmAsrConfig(
        text_config=dict(TEXT, model_type="llama", vocab_size=70),
        audio_config=audio | {"num_mel_bins": MELS, "rope_parameters": rope},
        audio_token_id=3,
    )
    return with_large_weights(GlmAsrForConditionalGeneration(config), seed)


def qwen2(vocab_size: int, tied: bool = True, seed: int = 3):
    config = Qwen2Config(**TEXT, vocab_size=vocab_size, tie_word_embeddings=tied, rms_norm_eps=1e-5)
    return with_large_weights(Qwen2ForCausalLM(config), seed)


def assembled(**keys):
    sizes = {name: ARK_SIZES[name] for name, part in (("audio", "encoder"), ("text", "decoder")) if part not in keys}
    return assemble(ModelConfig(sizes=keys.pop("sizes", sizes), **keys), student_tokenizer()).eval()


def mel(frames: int, seed: int = 0):
    return torch.randn(2, MELS, frames, generator=torch.Generator().manual_seed(seed))
