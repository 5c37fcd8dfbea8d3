"""Models without their weights: configurations from a folder, the Hub's cache or a table, and what they count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, WhisperForConditionalGeneration
from transformers.utils import cached_file

from arkasr.errors import UserError
from arkasr.model.loading import MODELS
from arkasr.model.pretrained_parts import reading
from arkasr.model.speech_lm.qwen3_asr import converted
from arkasr.model.weight_files import is_hub_id

_QWEN3 = {"model_type": "qwen3", "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8}
_QWEN3 |= {"head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}
_QWEN2 = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
_QWEN2 |= {"num_key_value_heads": 2, "tie_word_embeddings": True}
_ENCODER = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
_ENCODER |= {"num_mel_bins": 128, "max_source_positions": 1500}
_DECODER = {"decoder_layers": 32, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120, "vocab_size": 51866}


def _qwen3_asr(width: int, ffn: int, audio: tuple[int, int, int, int]) -> dict[str, Any]:
    names = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    heard = dict(zip(names, audio), output_dim=width, model_type="qwen3_asr_encoder")
    return {
        "model_type": "qwen3_asr",
        "audio_config": heard,
        "text_config": _QWEN3 | {"hidden_size": width, "intermediate_size": ffn},
    }


# Sizes as the repositories' config.json publish them, read in 2026; what is absent is transformers' default.
PUBLISHED: dict[str, dict[str, Any]] = {
    "openai/whisper-large-v3": {"model_type": "whisper"} | _ENCODER | _DECODER,
    "Qwen/Qwen2.5-0.5B": {"model_type": "qwen2", "vocab_size": 151936} | _QWEN2,
    "Qwen/Qwen3-ASR-1.7B": _qwen3_asr(2048, 6144, (1024, 24, 16, 4096)),
    "Qwen/Qwen3-ASR-0.6B": _qwen3_asr(1024, 3072, (896, 18, 14, 3584)),
    "AutoArk-AI/ARK-ASR-0.6B": {"model_type": "arkasr", "vocab_size": 163958, "whisper_config": _ENCODER} | _QWEN2,
}


@contextmanager
def config_folder(path: str) -> Iterator[tuple[str, str]]:
    """Yield a folder that holds the config.json of `path` (a folder or Hub id), and where that was found.

    Nothing is downloaded: a Hub id is looked for in the Hub's cache, then among PUBLISHED (the `-hf` repositories are
    of the same sizes). Raises UserError where there is no such file.
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
            f"{path}: no config.json here or in the Hub's cache, and it is none of {', '.join(PUBLISHED)}: "
            "fetch its config.json and give the folder"
        )


def _cached(path: str) -> str | None:
    if not is_hub_id(path):
        return None
    with reading(path):
        return cached_file(path, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)


def read_outline(path: str) -> tuple[PreTrainedConfig, str]:
    """Return the configuration of the recogniser at `path`, and where it was found; see `config_folder`."""
    with config_folder(path) as (folder, source), reading(path):
        given = PreTrainedConfig.get_config_dict(folder)[0]
        config = converted(given["thinker_config"]) if "thinker_config" in given else AutoConfig.from_pretrained(folder)
    if config.model_type not in (*MODELS, "whisper"):
        raise UserError(f"{path}: is of model_type {config.model_type!r}, no recogniser known here")
    return config, source


@dataclass(frozen=True)
class Counts:
    """Parameters, a tied head counted once: of the parts, of the largest block of each stack, and of no block."""

    encoder: int
    adapter: int
    decoder: int
    encoder_block: int
    decoder_block: int
    outside: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.encoder + self.adapter + self.decoder


def bare(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the model on the meta device: every shape and no number."""
    kinds = MODELS | {"whisper": WhisperForConditionalGeneration}
    with torch.device("meta"):
        return kinds[config.model_type](config)


def count(hf: PreTrainedModel) -> Counts:
    """Count a model's parameters."""
    model = hf.model
    if hf.config.model_type == "whisper":
        encoder, adapter, layers = model.encoder, None, (model.encoder.layers, model.decoder.layers)
    else:
        encoder, adapter = model.audio_tower, model.multi_modal_projector
        layers = encoder.layers, model.language_model.layers
    total, parts = _size(hf), [_size(part) for part in (encoder, adapter)]
    blocks = [max(map(_size, stack)) for stack in layers]
    inside = sum(_size(stack) for stack in layers)
    return Counts(parts[0], parts[1], total - sum(parts), *blocks, total - inside)


def _size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())
