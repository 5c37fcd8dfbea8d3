"""Parameter counts of models without their weights: configurations from a folder, the Hub's cache, or a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, WhisperForConditionalGeneration
from transformers.utils import cached_file

from arkasr.config.schema import ModelConfig, TrainConfig
from arkasr.errors import UserError
from arkasr.model.loading import MODELS
from arkasr.model.lora import TOWERS, adapted_layers
from arkasr.model.reading import reading
from arkasr.model.speech_lm.qwen3_asr import converted
from arkasr.model.tokenization import ARK_TOKENS
from arkasr.utils.hub import is_hub_id

_QWEN3 = {"model_type": "qwen3", "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
_QWEN3 |= {"head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}
_QWEN2 = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
_QWEN2 |= {"num_key_value_heads": 2, "tie_word_embeddings": True}
_ENCODER = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
_ENCODER |= {"num_mel_bins": 128, "max_source_positions": 1500}
_DECODER = {"decoder_layers": 32, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120, "vocab_size": 51866}


def _qwen3_asr(width: int, ffn: int, audio: tuple[int, int, int, int]) -> dict[str, Any]:
    names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    encoder = dict(zip(names, audio), output_dim=width, model_type="qwen3_asr_encoder")
    return {
        "model_type": "qwen3_asr",
        "audio_config": encoder,
        "text_config": _QWEN3 | {"hidden_size": width, "intermediate_size": ffn},
    }


# Sizes in the config.json of the published repositories, read in 2026. Absent keys have the defaults of transformers.
PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/whisper-large-v3": {"model_type": "whisper"} | _ENCODER | _DECODER,
    "zai-org/GLM-ASR-Nano-2512": {"model_type": "glmasr"},  # the defaults of transformers
    "Qwen/Qwen2.5-0.5B": {"model_type": "qwen2", "vocab_size": 151936} | _QWEN2,
    "Qwen/Qwen3-ASR-1.7B": _qwen3_asr(2048, 6144, (1024, 24, 16, 4096)),
    "Qwen/Qwen3-ASR-0.6B": _qwen3_asr(1024, 3072, (896, 18, 14, 3584)),
    "AutoArk-AI/ARK-ASR-0.6B": {"model_type": "arkasr", "vocab_size": 163958, "whisper_config": _ENCODER} | _QWEN2,
}


@contextmanager
def config_folder(path: str) -> Iterator[tuple[str, str]]:
    """Find the config.json of a model, without a download.

    A Hub id is looked up in the Hub's cache, then in `PUBLISHED`. Repositories with the suffix `-hf` have the same
    sizes as those without.

    Args:
        path: A folder or Hub id.

    Yields:
        A folder that holds the config.json, and a description of where it was found.

    Raises:
        UserError: There is no such file.
    """
    if (Path(path) / "config.json").is_file():
        yield path, "its folder"
    elif found := _cached(path):
        yield str(Path(found).parent), "the Hub's cache"
    elif known := PUBLISHED.get(path.removesuffix("-hf")):
        with TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(known), encoding="utf-8")
            yield folder, "the table of published sizes"
    else:
        raise UserError(
            f"{path}: no config.json here or in the Hub's cache; download it and give its folder, or use one of "
            f"{', '.join(PUBLISHED)}"
        )


def _cached(path: str) -> str | None:
    if not is_hub_id(path):
        return None
    with reading(path):
        return cached_file(path, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)


def read_model_config(path: str) -> tuple[PreTrainedConfig, str]:
    """Read the configuration of a speech recognition model.

    Args:
        path: A folder or Hub id, see `config_folder`.

    Returns:
        The configuration, and a description of where it was found.

    Raises:
        UserError: There is no config.json, or its `model_type` is not supported.
    """
    with config_folder(path) as (folder, source), reading(path):
        raw = PreTrainedConfig.get_config_dict(folder)[0]
        config = (
            converted(raw["thinker_config"])
            if "thinker_config" in raw
            else AutoConfig.from_pretrained(folder, trust_remote_code=False)
        )
    supported = (*MODELS, "whisper")
    if config.model_type not in supported:
        raise UserError(f"{path}: model_type {config.model_type!r} is not supported; use one of {', '.join(supported)}")
    return config, source


@dataclass(frozen=True)
class AdapterCounts:
    """Sizes of the LoRA adapters of one part of a model."""

    parameters: int
    inputs: int  # elements that all adapted layers read per position
    middle: int  # elements of all products A x per position


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters. A head tied to the embedding counts once."""

    encoder: int
    adapter: int
    decoder: int
    encoder_block: int  # the largest block of the encoder
    decoder_block: int  # the largest block of the decoder
    outside: int  # parameters that belong to no block
    lora: dict[str, AdapterCounts] = field(default_factory=dict)  # by part, not included in the other numbers

    @property
    def total(self) -> int:
        """All parameters, without LoRA adapters."""
        return self.encoder + self.adapter + self.decoder


def meta_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a model on the meta device, which stores shapes and no values.

    Args:
        config: Configuration of a supported model.

    Returns:
        The model.
    """
    kinds = MODELS | {"whisper": WhisperForConditionalGeneration}
    with torch.device("meta"):
        return kinds[config.model_type](config)


def count_parameters(hf: PreTrainedModel) -> ParameterCounts:
    """Count the parameters of a model and of its parts.

    Args:
        hf: A supported model, on any device.

    Returns:
        The counts.
    """
    model = hf.model
    if hf.config.model_type == "whisper":
        encoder, adapter, layers = model.encoder, None, (model.encoder.layers, model.decoder.layers)
    else:
        encoder, adapter = model.audio_tower, model.multi_modal_projector
        layers = encoder.layers, model.language_model.layers
    total, in_encoder, in_adapter = _size(hf), _size(encoder), _size(adapter)
    encoder_block, decoder_block = (max(map(_size, blocks)) for blocks in layers)
    in_blocks = sum(_size(blocks) for blocks in layers)
    return ParameterCounts(
        encoder=in_encoder,
        adapter=in_adapter,
        decoder=total - (in_encoder + in_adapter),
        encoder_block=encoder_block,
        decoder_block=decoder_block,
        outside=total - in_blocks,
    )


def count_adapters(hf: PreTrainedModel, config: ModelConfig) -> dict[str, AdapterCounts]:
    """Count the LoRA adapters of a run.

    Args:
        hf: The model without adapters, on any device.
        config: The section `model` of the configuration.

    Returns:
        The counts of each part that gets adapters.

    Raises:
        UserError: `lora.targets` names other layers than those of the model.
    """
    layers, rank, counts = adapted_layers(hf, config), config.lora.rank, {}
    for part, tower in TOWERS.items():
        own = [layer for name, layer in layers.items() if name.startswith(tower + ".")]
        if own:
            size = rank * sum(layer.in_features + layer.out_features for layer in own)
            counts[part] = AdapterCounts(size, sum(layer.in_features for layer in own), rank * len(own))
    return counts


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def ctc_tokens(train: TrainConfig) -> int:
    """Return the number of tokens that the CTC head has for itself.

    Args:
        train: The keys of the training.

    Returns:
        At most this many: pieces, bytes and special tokens. 0: it has those of the model.
    """
    return 257 + train.ctc_vocab_size + len(ARK_TOKENS) if train.ctc_vocab_size else 0
