"""Parts of pretrained models: their sizes from a configuration, and their tensors, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GlmAsrConfig, PreTrainedConfig, Qwen2Config, WhisperConfig
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrConfig
from arkasr.model.arkasr.published_config import ENCODER_KEYS
from arkasr.model.weight_files import is_hub_id

NOT_SIZES = ("architectures", "dtype", "model_type", "transformers_version", "_name_or_path")  # of a saved config
NOT_SIZES += ("bos_token_id", "eos_token_id", "pad_token_id")  # the tokenizer says them


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what may go wrong while a model's files are read into a UserError that names the path."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a model: {' '.join(str(error).split())}") from error


def kind_of(path: str) -> str:
    """Return the model_type that a folder or Hub id declares; raises UserError where there is none to read."""
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path}: no model here (no config.json): give a folder with a model, or a Hub id")
    with reading(path):
        return str(PreTrainedConfig.get_config_dict(path)[0].get("model_type"))


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in NOT_SIZES}


def encoder_sizes(path: str) -> dict[str, Any]:
    """Return `sizes.audio` of a pretrained encoder: that of a Whisper, GLM-ASR or Ark-ASR folder or Hub id."""
    kind = kind_of(path)
    with reading(path):
        if kind == "whisper":
            whisper = WhisperConfig.from_pretrained(path)
            return {ours: getattr(whisper, theirs) for theirs, ours in ENCODER_KEYS.items()}
        if kind in ("glmasr", "arkasr"):
            reader = GlmAsrConfig if kind == "glmasr" else ArkasrConfig
            return _plain(reader.from_pretrained(path).audio_config)
    raise UserError(f"model.encoder: {path} is of model_type {kind!r}; give one of whisper, glmasr, arkasr")


def decoder_sizes(path: str) -> dict[str, Any]:
    """Return `sizes.text` of a pretrained decoder: a Qwen2 or Qwen2.5 folder or Hub id; vocab_size is its own."""
    kind = kind_of(path)
    if kind != "qwen2":
        raise UserError(f"model.decoder: {path} is of model_type {kind!r}; give a qwen2 (Qwen2 and Qwen2.5 are)")
    with reading(path):
        return _plain(Qwen2Config.from_pretrained(path))


def part_weight_files(path: str) -> list[str]:
    """Return the safetensors files of a folder or Hub id; raises UserError where there are none."""
    with reading(path):
        for name in ("model.safetensors", "model.safetensors.index.json"):
            found = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                return get_checkpoint_shard_files(path, found)[0] if name.endswith(".json") else [found]
    raise UserError(f"{path}: no safetensors here; weights are read from safetensors only: convert them first")


def tensors(path: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yield file, key and tensor of a folder or Hub id, one tensor in memory at a time."""
    for file in part_weight_files(path):
        try:
            with safe_open(file, "pt") as weights:
                yield from ((file, key, weights.get_tensor(key)) for key in weights.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: cannot be read as safetensors ({error}); copy or download it anew") from error
