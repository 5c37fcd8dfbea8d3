"""Which SpeechLM wraps which Hugging Face model."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.base import SpeechLM
from arkasr.model.speech_lm.glmasr import GlmSpeechLM
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM

__all__ = ["SpeechLM", "wrap"]

KINDS: dict[str, type[SpeechLM]] = {"arkasr": ArkSpeechLM, "glmasr": GlmSpeechLM, "qwen3_asr": QwenSpeechLM}


def wrap(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Wrap a Hugging Face model by its configuration's `model_type`."""
    return KINDS[hf.config.model_type](hf, tokenizer)
