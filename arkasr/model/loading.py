"""Load a recogniser from a folder or the Hub, strictly: no key may be missing or left over."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, Qwen3ASRForConditionalGeneration

from arkasr.interfaces import UserError
from arkasr.model.modeling import ArkasrForConditionalGeneration
from arkasr.model.speech_lm import SpeechLM, wrap

MODELS = {"arkasr": ArkasrForConditionalGeneration, "qwen3_asr": Qwen3ASRForConditionalGeneration}


def load_speech_lm(path: str, dtype: str = "float32", device: torch.device | str = "cpu") -> SpeechLM:
    """Load weights, configuration and tokenizer as a SpeechLM in eval mode.

    path: folder or Hub id. Raises UserError where the folder is absent, is of another kind, or a tensor is missing,
    left over or of another shape.
    """
    if path.startswith((".", "/")) and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path}: no model here (no config.json): give a folder with a model, or a Hub id")
    config = AutoConfig.from_pretrained(path)
    if config.model_type not in MODELS:
        raise UserError(f"{path}: model_type {config.model_type!r} is none of {', '.join(sorted(MODELS))}")
    try:
        hf, info = MODELS[config.model_type].from_pretrained(path, config=config, dtype=getattr(torch, dtype), output_loading_info=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a model: {error}") from error
    bad = {what: sorted(map(str, keys)) for what, keys in info.items() if keys and what != "error_msgs"}
    if bad:
        raise UserError(f"{path}: not a complete {config.model_type} checkpoint: {bad}")
    return wrap(hf, AutoTokenizer.from_pretrained(path)).to(device).eval()
