"""Choose the SpeechLM class of a Hugging Face model."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from arkasr.model.speech_lm.arkasr import ArkSpeechLM
from arkasr.model.speech_lm.base import SpeechLM
from arkasr.model.speech_lm.glmasr import GlmSpeechLM
from arkasr.model.speech_lm.qwen3_asr import QwenSpeechLM

__all__ = ["SpeechLM", "wrap"]

CLASSES: dict[str, type[SpeechLM]] = {"arkasr": ArkSpeechLM, "glmasr": GlmSpeechLM, "qwen3_asr": QwenSpeechLM}


def wrap(hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SpeechLM:
    """Wrap a Hugging Face model in the SpeechLM class of its `model_type`.

    Args:
        hf: An Ark-ASR, GLM-ASR or Qwen3-ASR model.
        tokenizer: The model's tokenizer.

    Returns:
        The SpeechLM around the same weights.
    """
    return CLASSES[hf.config.model_type](hf, tokenizer)
