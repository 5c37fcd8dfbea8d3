"""Models with fresh weights, for training from scratch and for tests."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen3ASRConfig, Qwen3ASRForConditionalGeneration

from arkasr.model.configuration import ArkasrConfig
from arkasr.model.modeling import ArkasrForConditionalGeneration
from arkasr.model.prompt import INSTRUCTION
from arkasr.model.speech_lm import SpeechLM, wrap


def prompt_examples(model_type: str) -> list[str]:
    """Return the prompt's plain words, for training a tokenizer that keeps prompts short."""
    if model_type == "arkasr":
        return [INSTRUCTION]
    return ["system\n", "user\n", "assistant\n", "language English", "language Chinese"]


def build(model_type: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Build a model with fresh weights; `sizes` as in `configured`, vocab_size is the tokenizer's length otherwise."""
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    token = {"arkasr": "<|audio|>", "qwen3_asr": "<|audio_pad|>"}[model_type]
    audio_id = tokenizer.convert_tokens_to_ids(token)
    config = configured(model_type, sizes, len(tokenizer), audio_token_id=audio_id, **ids)
    kind = ArkasrForConditionalGeneration if model_type == "arkasr" else Qwen3ASRForConditionalGeneration
    return wrap(_with_loud_convolutions(kind(config)), tokenizer)


def configured(model_type: str, sizes: dict[str, Any], vocab_size: int, **ids: int) -> ArkasrConfig | Qwen3ASRConfig:
    """Return the configuration of a model of these sizes.

    sizes: `audio` and `text`, keys of the model's own two configurations, and `initializer_range`, the standard
    deviation of fresh linear layers and embeddings everywhere (0.02 suits large widths; 1/sqrt(width) small ones).
    `text` may say vocab_size (the one given otherwise) and tie_word_embeddings (true otherwise). ids: of special
    tokens: audio_token_id, pad_token_id, eos_token_id.
    """
    spread = dict(initializer_range=sizes.get("initializer_range", 0.02))
    text = dict(vocab_size=vocab_size, tie_word_embeddings=True) | sizes["text"] | spread
    ends = {name: value for name, value in ids.items() if name != "audio_token_id"}
    common = dict(ids, tie_word_embeddings=text["tie_word_embeddings"], **spread)
    if model_type == "arkasr":
        return ArkasrConfig(audio_config=sizes["audio"] | spread, text_config=text | ends, **common)
    audio = sizes["audio"] | spread | dict(output_dim=text["hidden_size"])
    return Qwen3ASRConfig(audio_config=audio, text_config=dict(text, model_type="qwen3") | ends, **common)


def _with_loud_convolutions(hf: PreTrainedModel) -> PreTrainedModel:
    """Draw fresh convolutions with standard deviation 2 / sqrt(fan_in): GELU halves what is small, so that the signal
    keeps its size. At a fixed 0.02 a small encoder hears its position codes only.
    """
    for module in hf.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=2.0 / math.sqrt(module.weight[0].numel()))
    return hf
