"""Load a recogniser from a folder or the Hub. Missing or unexpected weights are errors, and no remote code runs."""

from __future__ import annotations

import copy
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
from arkasr.model.lora_files import base_of, is_adapter, merge_files
from arkasr.model.reading import check_json_files, load_tokenizer, reading
from arkasr.model.size_limits import check_config
from arkasr.model.speech_lm.auto import SpeechLM, wrap
from arkasr.model.weight_checks import Shape, check_finite, check_tensors
from arkasr.model.weight_digests import check_digests
from arkasr.model.weight_files import check_loading_info, tensor_shapes, weight_files
from arkasr.utils.hub import is_hub_id

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
            layout) or GLM-ASR. Or folder of a LoRA adapter in PEFT's layout, which is merged into its base.
        dtype: Name of a torch dtype for the weights, such as "bfloat16". The dtype in the files does not matter.
        device: Where the model is placed.
        allow_pickle: Read weights from pytorch_model.bin if there are no safetensors.

    Returns:
        The model in evaluation mode.

    Raises:
        UserError: The folder is absent, cannot be read, holds another kind of model or needs its own code. Or a file
            or tensor is missing, unexpected, broken, changed after it was written, not finite or has another shape.
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
    if is_adapter(path):
        hf, tokenizer = load_pretrained(base_of(path), models, dtype, allow_pickle)
        return merge_files(path, hf), tokenizer
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        place = "in this folder" if Path(path).is_dir() else "because there is no such folder"
        raise UserError(
            f"{path}: no config.json {place}; give the folder of a model or a Hub id (owner/name). "
            f"Relative paths start at {Path.cwd()}"
        )
    check_json_files(path)
    files = weight_files(Path(path), allow_pickle) if Path(path).is_dir() else None
    shapes = None if files is None else tensor_shapes(files)
    options = {"dtype": getattr(torch, dtype), "use_safetensors": None if allow_pickle else True}
    with reading(path):
        hf = _load_weights(path, models, shapes, **options)
    check_digests(files or ())
    check_finite(path, hf)
    return hf, load_tokenizer(path)


def _load_weights(
    path: str, models: Mapping[str, type[PreTrainedModel]], shapes: Mapping[str, Shape] | None, **options: Any
) -> PreTrainedModel:
    raw = PreTrainedConfig.get_config_dict(path)[0]
    check_config(raw, path)
    model_type: Any = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in models:
        code = "; its own code (auto_map) is never run" if "auto_map" in raw else ""
        allowed = ", ".join(sorted(models))
        raise UserError(
            f"{path}: model_type {model_type!r} in config.json is not one of {allowed}; use such a model{code}"
        )
    model_class, names = models[model_type], None
    config: Any
    if model_type == "arkasr":  # its from_pretrained checks the weights itself
        return model_class.from_pretrained(path, trust_remote_code=False, **options)
    if "thinker_config" in raw:
        from arkasr.model.speech_lm.qwen3_asr import ORIGINAL_KEYS, converted

        config, names = converted(raw["thinker_config"]), ORIGINAL_KEYS
    else:
        config_class: Any = model_class.config_class
        config = config_class.from_pretrained(path, trust_remote_code=False)
    if shapes is not None:  # files of the Hub are not here yet
        with torch.device("meta"):
            check_tensors(model_class(copy.deepcopy(config)), shapes, path, names)
    loaded: Any = model_class.from_pretrained(
        path,
        config=config,
        key_mapping=names,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
        **options,
    )
    hf, info = loaded
    check_loading_info(path, info)
    return hf
