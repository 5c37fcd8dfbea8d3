"""Load a recogniser from a folder or the Hub, strictly: no key may be missing or left over."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedConfig, Qwen3ASRForConditionalGeneration

from arkasr.interfaces import UserError
from arkasr.model.modeling import ArkasrForConditionalGeneration
from arkasr.model.speech_lm import SpeechLM, wrap

MODELS = {"arkasr": ArkasrForConditionalGeneration, "qwen3_asr": Qwen3ASRForConditionalGeneration}


def load_speech_lm(path: str, dtype: str = "float32", device: torch.device | str = "cpu") -> SpeechLM:
    """Load weights, configuration and tokenizer as a SpeechLM in eval mode.

    path: folder or Hub id; dtype: torch's name of one. Raises UserError where the folder is absent, cannot be read, is
    of another kind, or a tensor is missing, left over or of another shape.
    """
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise UserError(f"{path}: dtype {dtype!r} is none of torch's: use float32 or bfloat16")
    is_folder = path.startswith((".", "/")) or path.count("/") != 1  # a Hub id is owner/name
    if is_folder and not (Path(path) / "config.json").is_file():
        raise UserError(
            f"{path}: no model here (no config.json): give a folder with a model, or a Hub id; "
            f"relative folders are looked for in {Path.cwd()}"
        )
    _check_weights(Path(path))
    try:
        kind = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        if kind not in MODELS:
            raise UserError(f"{path}: model_type {kind!r} is none of {', '.join(sorted(MODELS))}")
        options = dict(dtype=getattr(torch, dtype), use_safetensors=True, ignore_mismatched_sizes=True)
        hf, info = MODELS[kind].from_pretrained(path, output_loading_info=True, **options)
        bad = {what: sorted(map(str, keys)) for what, keys in info.items() if keys}
        if bad:
            raise UserError(f"{path}: not a complete {kind} checkpoint: {bad}")
        return wrap(hf, AutoTokenizer.from_pretrained(path)).to(device).eval()
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a model: {' '.join(str(error).split())}") from error


def _check_weights(folder: Path) -> None:
    """Open every weight file of a local folder, so that a broken one is named."""
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        try:
            with safe_open(file, "pt") as weights:
                weights.keys()
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file}: cannot be read as safetensors ({error}); copy or export the model anew"
            ) from error
