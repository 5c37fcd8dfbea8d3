"""Student and teacher with random weights over one vocabulary, and clips of noise, for benchmarks.

The cost of a step depends on model sizes and lengths, not on the values of the weights.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import Qwen2Tokenizer

from arkasr import SAMPLE_RATE, SpeechLM
from arkasr.model.build import build_fresh
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS

# mini: the sizes of egs/conf/mini.yaml. paper: the published student and Qwen3-ASR-1.7B. thin: their numbers of layers
# with small widths, which a CPU computes quickly and which takes the same number of operations.
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
    "thin": {
        "audio": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 32, "num_attention_heads": 2}
        | {"num_mel_bins": 128},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 24, "num_attention_heads": 4}
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
    "thin": {
        "audio": {"d_model": 32, "encoder_ffn_dim": 64, "encoder_layers": 24, "encoder_attention_heads": 2}
        | {"num_mel_bins": 128, "downsample_hidden_size": 16, "n_window": 50, "n_window_infer": 800},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 28, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 32768},
    },
}


def tokenizer(vocab_size: int) -> Qwen2Tokenizer:
    """Make a byte-level BPE tokenizer without merges.

    Args:
        vocab_size: Number of tokens: 256 bytes, then artificial words, then the special tokens of both models.
    """
    special = [*dict.fromkeys(ARK_TOKENS + QWEN_TOKENS)]
    words = map("".join, itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
    plain = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words][: vocab_size - len(special)]
    bpe = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate([*plain, *special])},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    bpe.add_special_tokens({"additional_special_tokens": special})
    return bpe


def student(size: str, tokens: Qwen2Tokenizer, device: str, dtype: str) -> SpeechLM:
    """Build an Ark-ASR with random weights.

    Args:
        size: Key of `STUDENTS`.
        tokens: The tokenizer.
        device: Where the weights are initialised.
        dtype: Name of the weights' torch dtype.
    """
    return _build(device, dtype, "arkasr", STUDENTS[size], tokens)


def teacher(size: str, tokens: Qwen2Tokenizer, device: str, dtype: str) -> SpeechLM:
    """Build a frozen Qwen3-ASR with random weights.

    Args:
        size: Key of `TEACHERS`.
        tokens: The tokenizer.
        device: Where the weights are initialised.
        dtype: Name of the weights' torch dtype.
    """
    return _build(device, dtype, "qwen3_asr", TEACHERS[size], tokens).requires_grad_(False)


def _build(device: str, dtype: str, kind: str, sizes: dict[str, Any], tokens: Qwen2Tokenizer) -> SpeechLM:
    torch.manual_seed(0)
    with torch.device(device):
        return build_fresh(kind, sizes, tokens).to(device, getattr(torch, dtype)).eval()


def clips(count: int, seconds: float) -> list[Tensor]:
    """Make clips of noise.

    Args:
        count: Number of clips.
        seconds: Length of each clip.

    Returns:
        float32 [num_samples] at 16 kHz each.
    """
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(int(SAMPLE_RATE * seconds), generator=generator) for _ in range(count)]
