"""Load a recogniser from a folder or the Hub, strictly: no key may be missing or left over, and no code is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoTokenizer,
    GlmAsrForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3ASRForConditionalGeneration,
)

from arkasr.errors import UserError
from arkasr.model.arkasr.modeling_arkasr import ArkasrForConditionalGeneration
from arkasr.model.speech_lm.auto import SpeechLM, wrap
from arkasr.model.weight_files import is_hub_id, refuse_incomplete, tensor_names, weight_files

MODELS: dict[str, type[PreTrainedModel]] = {
    "arkasr": ArkasrForConditionalGeneration,
    "glmasr": GlmAsrForConditionalGeneration,
    "qwen3_asr": Qwen3ASRForConditionalGeneration,
}


def load_speech_lm(
    path: str, dtype: str = "float32", device: torch.device | str = "cpu", allow_pickle: bool = False
) -> SpeechLM:
    """Load weights, configuration and tokenizer as a SpeechLM in eval mode.

    path: folder or Hub id, of Ark-ASR (our layout or the published one), Qwen3-ASR (transformers' layout or the
    original one) or GLM-ASR; dtype: torch's name of one, whatever the files hold; allow_pickle: whether weights may be
    read from pytorch_model.bin where there are no safetensors.

    Raises UserError where the folder is absent, cannot be read, is of another kind or needs code of its own, or a file
    or tensor is missing, left over, broken or of another shape.
    """
    hf, tokenizer = load_pretrained(path, MODELS, dtype, allow_pickle)
    return wrap(hf, tokenizer).to(device).eval()


def load_pretrained(
    path: str, models: Mapping[str, type[PreTrainedModel]], dtype: str = "float32", allow_pickle: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load one of `models`, by model_type, and its tokenizer; arguments and errors are those of `load_speech_lm`."""
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"{path}: dtype {dtype!r} is none of torch's: use float32 or bfloat16")
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        raise UserError(
            f"{path}: no model here (no config.json): give a folder with a model, or a Hub id; "
            f"relative folders are looked for in {Path.cwd()}"
        )
    if Path(path).is_dir():
        tensor_names(weight_files(Path(path), allow_pickle))
    try:
        hf = _load_weights(path, models, dtype=getattr(torch, dtype), use_safetensors=None if allow_pickle else True)
        return hf, AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except UserError:
        raise
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UserError(f"{path}: cannot be read as a model: {' '.join(str(error).split())}") from error


def _load_weights(path: str, models: Mapping[str, type[PreTrainedModel]], **options: Any) -> PreTrainedModel:
    config = PreTrainedConfig.get_config_dict(path)[0]
    kind = config.get("model_type")
    if kind not in models:
        code = "; it names code of its own (auto_map), which is never run here" if "auto_map" in config else ""
        raise UserError(f"{path}: model_type {kind!r} in config.json is none of {', '.join(sorted(models))}{code}")
    if "thinker_config" in config:
        from arkasr.model.speech_lm.qwen3_asr import from_original

        hf, info = from_original(path, ignore_mismatched_sizes=True, **options)
    elif kind == "arkasr":  # strict by itself
        return ArkasrForConditionalGeneration.from_pretrained(path, **options)
    else:
        hf, info = models[kind].from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    refuse_incomplete(path, info)
    return hf
