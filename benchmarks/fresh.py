"""Student and teacher with fresh weights at any size, over one vocabulary of any size; clips of noise.

What a step costs depends on sizes and lengths, not on what the weights hold.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import Qwen2Tokenizer

from arkasr import SpeechLM
from arkasr.model.build import build_fresh
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS

# models: mini is that of egs/conf/mini.yaml; paper the published student and Qwen3-ASR-1.7B.
STUDENTS: dict[str, dict[str, Any]] = {
    "mini": {
        "audio": {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"num_mel_bins": 40},
        "text": {"hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 2},
    },
    "paper": {
        "audio": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
        | {"num_mel_bins": 128},
        "text": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
        | {"num_key_value_heads": 2, "max_position_embeddings": 32768},
    },
}
TEACHERS: dict[str, dict[str, Any]] = {
    "mini": {
        "audio": {"d_model": 128, "encoder_ffn_dim": 512, "encoder_layers": 3, "encoder_attention_heads": 4}
        | {"num_mel_bins": 40, "downsample_hidden_size": 64, "n_window": 50, "n_window_infer": 800},
        "text": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "head_dim": 32},
    },
    "paper": {
        "audio": {"d_model": 1024, "encoder_ffn_dim": 4096, "encoder_layers": 24, "encoder_attention_heads": 16}
        | {"num_mel_bins": 128, "downsample_hidden_size": 480, "n_window": 50, "n_window_infer": 800},
        "text": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
        | {"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 32768},
    },
}


def tokenizer(vocab_size: int) -> Qwen2Tokenizer:
    """Make byte-level BPE of `vocab_size` tokens: bytes, made-up words, and both models' special tokens last."""
    special = [*dict.fromkeys(ARK_TOKENS + QWEN_TOKENS)]
    words = map("".join, itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    plain = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words][: vocab_size - len(special)]
    made = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([*plain, *special])},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    made.add_special_tokens({"additional_special_tokens": special})
    return made


def student(size: str, words: Qwen2Tokenizer, device: str, dtype: str) -> SpeechLM:
    """Build an Ark-ASR of that size with random weights, directly on the device."""
    return _on(device, dtype, "arkasr", STUDENTS[size], words)


def teacher(size: str, words: Qwen2Tokenizer, device: str, dtype: str) -> SpeechLM:
    """Build a frozen Qwen3-ASR of that size with random weights, directly on the device."""
    return _on(device, dtype, "qwen3_asr", TEACHERS[size], words).requires_grad_(False)


def _on(device: str, dtype: str, kind: str, sizes: dict[str, Any], words: Qwen2Tokenizer) -> SpeechLM:
    torch.manual_seed(0)
    with torch.device(device):
        return build_fresh(kind, sizes, words).to(device, getattr(torch, dtype)).eval()


def clips(count: int, seconds: float) -> list[Tensor]:
    """Make `count` clips of noise, each `seconds` long."""
    draw = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(int(16000 * seconds), generator=draw) for _ in range(count)]
