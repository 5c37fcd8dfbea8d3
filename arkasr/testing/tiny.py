"""A student and a teacher with fewer than 100,000 random weights, their tokenizers, and audio, all built in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arkasr.interfaces import SAMPLE_RATE
from arkasr.model.build import build_fresh
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.train_tokenizer import train_byte_bpe, train_sentencepiece

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "she sells sea shells by the sea shore",
    "one two three four five six seven eight nine ten",
    "\u4f60\u597d\u4e16\u754c",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d",
    "\u4eca\u5929 hello \u4e16\u754c",
    "please transcribe this audio system user assistant language English Chinese",
] * 3
ARK_SIZES: dict[str, Any] = {
    "initializer_range": 0.2,
    "audio": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_mel_bins": 16},
    "text": {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
}
QWEN_SIZES: dict[str, Any] = {
    "initializer_range": 0.2,
    "audio": {"num_mel_bins": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    | {"d_model": 32, "downsample_hidden_size": 8, "n_window": 50, "n_window_infer": 800},
    "text": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024},
}


@lru_cache
def student_tokenizer() -> PreTrainedTokenizerBase:
    """Return a SentencePiece tokenizer with byte fallback, the student's kind. It is cached, so do not change it."""
    return train_sentencepiece(TEXTS, 120)


@lru_cache
def teacher_tokenizer() -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer, the teacher's kind. It is cached, so do not change it."""
    return train_byte_bpe(TEXTS, 340)


def tiny_student(seed: int = 0, tokenizer: PreTrainedTokenizerBase | None = None) -> SpeechLM:
    """Return an Ark-ASR model with 47,000 random weights and no dropout.

    Args:
        seed: Seed of the weights.
        tokenizer: The tokenizer, or None for `student_tokenizer()`.

    Returns:
        The model in evaluation mode.
    """
    return _fresh("arkasr", ARK_SIZES, tokenizer or student_tokenizer(), seed)


def tiny_teacher(seed: int = 1, tokenizer: PreTrainedTokenizerBase | None = None, **audio: int) -> SpeechLM:
    """Return a Qwen3-ASR model with 90,000 random weights.

    The result is a model with `tokenizer` and `stop_ids`, not an `arkasr.Teacher`. Call `.save(Path(folder))` to write
    it for a teacher that loads a folder.

    Args:
        seed: Seed of the weights.
        tokenizer: The tokenizer, or None for `teacher_tokenizer()`.
        **audio: Values that replace those of the encoder's configuration.

    Returns:
        The model in evaluation mode.
    """
    sizes = QWEN_SIZES | {"audio": QWEN_SIZES["audio"] | audio}
    return _fresh("qwen3_asr", sizes, tokenizer or teacher_tokenizer(), seed)


def _fresh(model_type: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerBase, seed: int) -> SpeechLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_fresh(model_type, sizes, tokenizer).eval()


def waveform(num_samples: int, seed: int = 0) -> Tensor:
    """Return a waveform of two tones of varying loudness with noise.

    Args:
        num_samples: Its length at 16 kHz.
        seed: Seed of the noise. It also sets the pitch of one tone.

    Returns:
        float32 [num_samples].
    """
    time = torch.arange(num_samples) / SAMPLE_RATE
    noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))
    tones = torch.sin(6.28 * (200 + 90 * seed) * time) + torch.sin(6.28 * 1300 * time**2)
    return (0.2 * tones * (0.3 + time.sin() ** 2) + 0.02 * noise).float()
