"""The real Qwen3 tokenizer, which lies beside the checkout, and models that use it."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import pytest

from arkasr.model.reading import load_tokenizer
from arkasr.model.tokenization import ARK_TOKENS, QWEN_TOKENS, token_bytes

FOLDER = Path(__file__).parents[3] / "shared" / "tokenizers" / "qwen3"
needs_tokenizer = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs ../shared/tokenizers/qwen3")
NUM_BASE = 151_643  # ordinary tokens, before the added ones
VOCAB_SIZE = 151_936  # rows of the output heads of Qwen models
TEXTS = [
    "the quick brown fox doesn't jump over 12 lazy dogs",
    "He said: 'Well-known facts, e.g. 3.5 %, are rare!'",
    "甚至出现交易几乎停滞的情况",
    "今天天气很好。我们去公园吧。",
    "我用 Python 写了一个 ASR 系统。准确率是百分之九十五",
    "𠮷野家 的 𩸽 🎧 naïve café",
    " leading and  double spaces\nand a line",
    "",
]


@lru_cache
def plain():
    """Return the tokenizer as published. Callers must not change it."""
    return load_tokenizer(str(FOLDER))


@lru_cache
def with_tokens(kind: str):
    """Return the tokenizer with the special tokens of a model, `arkasr` or `qwen3_asr`."""
    tokenizer = copy.deepcopy(plain())
    tokens = {"arkasr": ARK_TOKENS, "qwen3_asr": QWEN_TOKENS}[kind]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens, "eos_token": "<|im_end|>"})
    return tokenizer


@lru_cache
def bytes_of(kind: str = ""):
    """Return `token_bytes` of the tokenizer, as published or with the special tokens of a model."""
    return token_bytes(with_tokens(kind) if kind else plain())
