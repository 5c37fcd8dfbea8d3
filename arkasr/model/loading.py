"""Load a recogniser from a folder or the Hub. Missing or unexpected weights are errors, and no remote code runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GlmAsrForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3ASRForConditionalGeneration,
)

from arkasr.errors import UserError
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration
from arkasr.model.reading import check_json_files, load_tokenizer, reading
from arkasr.model.speech_lm.auto import SpeechLM, wrap
from arkasr.model.weight_files import check_loading_info, is_hub_id, tensor_names, weight_files

MODELS: dict[str, type[PreTrainedModel]] = {
    "arkasr": ArkasrForConditionalGeneration,
    "glmasr": GlmAsrForConditionalGeneration,
    "qwen3_asr": Qwen3ASRForConditionalGeneration,
}


def load_speech_lm(
    path: str, dtype: str = "float32", device: torch.device | str = "cpu", allow_pickle: bool = False
) -> SpeechLM:
    """Load weights, configuration and tokenizer of a recogniser.

    Args:
        path: Folder or Hub id of Ark-ASR (native or published layout), Qwen3-ASR (transformers' or the original
            layout) or GLM-ASR.
        dtype: Name of a torch dtype for the weights, such as "bfloat16". The dtype in the files does not matter.
        device: Where the model is placed.
        allow_pickle: Read weights from pytorch_model.bin if there are no safetensors.

    Returns:
        The model in evaluation mode.

    Raises:
        UserError: The folder is absent, cannot be read, holds another kind of model or needs its own code. Or a file
            or tensor is missing, unexpected, broken or has another shape.
    """
    hf, tokenizer = load_pretrained(path, MODELS, dtype, allow_pickle)
    return wrap(hf, tokenizer).to(device).eval()


def load_pretrained(
    path: str, models: Mapping[str, type[PreTrainedModel]], dtype: str = "float32", allow_pickle: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a Hugging Face model of one of several classes, and its tokenizer.

    Args:
        path: Folder or Hub id.
        models: The classes that are allowed, by the `model_type` of config.json.
        dtype: See `load_speech_lm`.
        allow_pickle: See `load_speech_lm`.

    Returns:
        The model on the CPU, and its tokenizer.

    Raises:
        UserError: See `load_speech_lm`.
    """
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"{path}: dtype {dtype!r} is not a dtype of torch; use float32 or bfloat16")
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        raise UserError(
            f"{path}: no config.json in this folder; give the folder of a model or a Hub id (owner/name). "
            f"Relative paths start at {Path.cwd()}"
        )
    if Path(path).is_dir():
        tensor_names(weight_files(Path(path), allow_pickle))
    check_json_files(path)
    with reading(path):
        hf = _load_weights(path, models, dtype=getattr(torch, dtype), use_safetensors=None if allow_pickle else True)
    return hf, load_tokenizer(path)


def _load_weights(path: str, models: Mapping[str, type[PreTrainedModel]], **options: Any) -> PreTrainedModel:
    config = PreTrainedConfig.get_config_dict(path)[0]
    model_type: Any = config.get("model_type")
    if model_type not in models:
        code = "; its own code (auto_map) is never run" if "auto_map" in config else ""
        allowed = ", ".join(sorted(models))
        raise UserError(
            f"{path}: model_type {model_type!r} in config.json is not one of {allowed}; use such a model{code}"
        )
    if "thinker_config" in config:
        from arkasr.model.speech_lm.qwen3_asr import from_original

        hf, info = from_original(path, ignore_mismatched_sizes=True, **options)
    elif model_type == "arkasr":  # its from_pretrained checks the weights itself
        return ArkasrForConditionalGeneration.from_pretrained(path, trust_remote_code=False, **options)
    else:
        model_class = models[model_type]
        loaded: Any = model_class.from_pretrained(
            path, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **options
        )
        hf, info = loaded
    check_loading_info(path, info)
    return hf
