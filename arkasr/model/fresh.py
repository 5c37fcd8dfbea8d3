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
    """Build a model with fresh weights.

    sizes: `audio` and `text`, keys of the model's own two configurations, and `initializer_range`, the standard
    deviation of fresh linear layers and embeddings everywhere (0.02 suits large widths; 1/sqrt(width) small ones).
    `text` may say vocab_size (the tokenizer's length otherwise) and tie_word_embeddings (true otherwise).
    """
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    spread = dict(initializer_range=sizes.get("initializer_range", 0.02))
    text = dict(vocab_size=len(tokenizer), tie_word_embeddings=True) | sizes["text"] | spread
    token = {"arkasr": "<|audio|>", "qwen3_asr": "<|audio_pad|>"}[model_type]
    common = dict(audio_token_id=tokenizer.convert_tokens_to_ids(token), **ids, **spread)
    common["tie_word_embeddings"] = text["tie_word_embeddings"]
    if model_type == "arkasr":
        config = ArkasrConfig(audio_config=sizes["audio"] | spread, text_config=text | ids, **common)
        return wrap(_with_loud_convolutions(ArkasrForConditionalGeneration(config)), tokenizer)
    audio = sizes["audio"] | spread | dict(output_dim=text["hidden_size"])
    config = Qwen3ASRConfig(audio_config=audio, text_config=dict(text, model_type="qwen3") | ids, **common)
    return wrap(_with_loud_convolutions(Qwen3ASRForConditionalGeneration(config)), tokenizer)


def _with_loud_convolutions(hf: PreTrainedModel) -> PreTrainedModel:
    """Draw fresh convolutions with standard deviation 2 / sqrt(fan_in): GELU halves what is small, so that the signal
    keeps its size. At a fixed 0.02 a small encoder hears its position codes only.
    """
    for module in hf.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=2.0 / math.sqrt(module.weight[0].numel()))
    return hf
