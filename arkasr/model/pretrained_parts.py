"""Read the parts of pretrained models: their sizes from config.json, and their tensors one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import GlmAsrConfig, PreTrainedConfig, Qwen2Config, WhisperConfig
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import LEARNED, ArkasrConfig
from arkasr.model.arkasr.published_config import ENCODER_KEYS
from arkasr.model.reading import check_json_files, reading
from arkasr.model.size_limits import check_config
from arkasr.model.weight_digests import check_digests
from arkasr.model.weight_files import tensor_shapes
from arkasr.utils.hub import is_hub_id

NOT_SIZES = {"architectures", "dtype", "model_type", "transformers_version", "_name_or_path"}  # of a saved config
NOT_SIZES |= {"bos_token_id", "eos_token_id", "pad_token_id"}  # the tokenizer defines these


def model_type_of(path: str) -> str:
    """Return the `model_type` in a model's config.json.

    Args:
        path: Folder or Hub id.

    Returns:
        The type, such as "whisper", or "None" if config.json has none.

    Raises:
        UserError: There is no config.json, it cannot be read, or a size in it is out of bounds.
    """
    if not is_hub_id(path) and not (Path(path) / "config.json").is_file():
        place = "in this folder" if Path(path).is_dir() else "because there is no such folder"
        raise UserError(f"{path}: no config.json {place}; give the folder of a model or a Hub id (owner/name)")
    check_json_files(path)
    with reading(path):
        config = PreTrainedConfig.get_config_dict(path)[0]
        check_config(config, path)
        return str(config.get("model_type"))


def _sizes(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in NOT_SIZES}


def encoder_sizes(path: str) -> dict[str, Any]:
    """Return the sizes of a pretrained encoder.

    Args:
        path: Folder or Hub id of a Whisper, GLM-ASR or Ark-ASR model.

    Returns:
        `sizes["audio"]` of `build.fresh_config`: keys of ArkasrEncoderConfig. Whisper's positions are "learned".

    Raises:
        UserError: The model has another type, or its config.json cannot be read.
    """
    model_type = model_type_of(path)
    with reading(path):
        if model_type == "whisper":
            whisper = WhisperConfig.from_pretrained(path, trust_remote_code=False)
            sizes = {key: getattr(whisper, whisper_key) for whisper_key, key in ENCODER_KEYS.items()}
            return sizes | {"positions": LEARNED}
        if model_type == "glmasr":
            return _sizes(GlmAsrConfig.from_pretrained(path, trust_remote_code=False).audio_config)
        if model_type == "arkasr":
            return _sizes(ArkasrConfig.from_pretrained(path, trust_remote_code=False).audio_config)
    raise UserError(
        f"model.encoder {path}: model_type {model_type!r} is not one of whisper, glmasr, arkasr; use such a model"
    )


def decoder_sizes(path: str) -> dict[str, Any]:
    """Return the sizes of a pretrained decoder.

    Args:
        path: Folder or Hub id of a Qwen2 or Qwen2.5 model.

    Returns:
        `sizes["text"]` of `build.fresh_config`: keys of Qwen2Config. `vocab_size` is that of the checkpoint.

    Raises:
        UserError: The model has another type, or its config.json cannot be read.
    """
    model_type = model_type_of(path)
    if model_type != "qwen2":
        raise UserError(f"model.decoder {path}: model_type {model_type!r} is not qwen2; give a Qwen2 or Qwen2.5 model")
    with reading(path):
        return _sizes(Qwen2Config.from_pretrained(path, trust_remote_code=False))


def part_weight_files(path: str) -> list[str]:
    """Return the safetensors files of a model. Files of a Hub id are downloaded.

    Args:
        path: Folder or Hub id.

    Returns:
        One file, or all shards.

    Raises:
        UserError: There are no safetensors, or a shard is missing.
    """
    with reading(path):
        for name in ("model.safetensors", "model.safetensors.index.json"):
            found = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
            if found is not None:
                return get_checkpoint_shard_files(path, found)[0] if name.endswith(".json") else [found]
    raise UserError(f"{path}: no safetensors found; convert the weights to safetensors, the only format read here")


def tensors(path: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yield all tensors of a model with one tensor in memory at a time.

    Args:
        path: Folder or Hub id.

    Yields:
        The file, the key in the file, and the tensor on the CPU.

    Raises:
        UserError: A file is missing, was changed after it was written or cannot be read.
    """
    for file in part_weight_files(path):
        check_digests([Path(file)])
        try:
            with safe_open(file, "pt") as weights:
                names = list(weights.keys())
                yield from ((file, key, weights.get_tensor(key)) for key in names)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: cannot be read as safetensors ({error}); copy or download it again") from error


def outlines(path: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yield all tensors of a model as `tensors` does, but on the meta device: with their shapes and without values.

    Args:
        path: Folder or Hub id.

    Yields:
        The file, the key in the file, and the tensor.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    for file in part_weight_files(path):
        yield from ((file, key, torch.empty(shape, device="meta")) for key, shape in tensor_shapes([file]).items())
