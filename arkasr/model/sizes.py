"""Check `model.sizes`, the sizes of fresh models, before a model is built."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen3ASREncoderConfig, Qwen3Config
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from arkasr.errors import UserError
from arkasr.model.arkasr.configuration_arkasr import ArkasrEncoderConfig
from arkasr.model.size_limits import check_table

PARTS: dict[str, dict[str, type[PreTrainedConfig]]] = {
    "arkasr": {"audio": ArkasrEncoderConfig, "text": Qwen2Config},
    "qwen3_asr": {"audio": Qwen3ASREncoderConfig, "text": Qwen3Config},
}
# Keys that a fresh model gets from elsewhere: the tokenizer, the decoder, `model.sizes.initializer_range`.
DERIVED = {"pad_token_id", "bos_token_id", "eos_token_id", "output_dim", "initializer_range"}
FLOAT32_BYTES = 4


def check_sizes(sizes: Mapping[str, Any], model_type: str) -> None:
    """Check the keys and values of `model.sizes`.

    Args:
        sizes: The section of the configuration.
        model_type: "arkasr" or "qwen3_asr".

    Raises:
        UserError: A key is unknown, or a value has a wrong type or is out of bounds. The message has the dotted key.
    """
    parts = PARTS[model_type]
    _check_keys(sizes, {*parts, "initializer_range"}, "model.sizes")
    _check_range(sizes, "initializer_range", "model.sizes", 1.0)
    for part in parts.keys() & sizes.keys():
        key, table = f"model.sizes.{part}", sizes[part]
        if not isinstance(table, Mapping):
            raise UserError(f"config key `{key}` must be a mapping of sizes, got {table!r}; see egs/conf/mini.yaml")
        if "initializer_range" in table:
            raise UserError(f"config key `{key}.initializer_range` is not allowed; set model.sizes.initializer_range")
        base = {field.name for field in fields(PreTrainedConfig)}
        _check_keys(table, {field.name for field in fields(parts[part])} - base - DERIVED, key)
        check_table(table, f"config key `{key}.{{}}`")
        _check_numbers(table, key)
        _check_even(table, part, key)


def check_memory(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> None:
    """Check that a fresh model can be built and fits into the memory of this machine.

    Args:
        model_class: Class of the model.
        config: Its configuration.

    Raises:
        UserError: There is no such model, or its weights need more than all of the machine's memory.
    """
    try:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in model_class(config).parameters())
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, AssertionError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"config key `model.sizes` describes no model ({cause}); correct it") from error
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count * FLOAT32_BYTES > available:
        raise UserError(
            f"config key `model.sizes`: {count:,} parameters need {count * FLOAT32_BYTES / 2**30:,.0f} GiB, but this "
            f"machine has {available / 2**30:,.0f} GiB of memory; lower the sizes"
        )


def _check_keys(table: Mapping[str, Any], known: set[str], key: str) -> None:
    for name in table:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            hint = f"did you mean {key}.{near[0]}?" if near else f"known keys are {', '.join(sorted(known))}"
            raise UserError(f"config key `{key}.{name}` is unknown; {hint}")


def _check_numbers(table: Mapping[str, Any], key: str) -> None:
    for name in ("attention_dropout", "dropout", "activation_dropout"):
        _check_range(table, name, key, 1.0, least=0.0)
    _check_range(table, "rms_norm_eps", key, 1.0)
    if isinstance(rope := table.get("rope_parameters"), Mapping):
        _check_range(rope, "rope_theta", f"{key}.rope_parameters", math.inf)
        if rope.get("rope_type", "default") not in {"default", *ROPE_INIT_FUNCTIONS}:
            names = ", ".join(["default", *ROPE_INIT_FUNCTIONS])
            raise UserError(
                f"config key `{key}.rope_parameters.rope_type` must be one of {names}, got {rope['rope_type']!r}"
            )
    for name in {"hidden_act", "activation_function"} & table.keys():
        if table[name] not in ACT2FN:
            raise UserError(f"config key `{key}.{name}` must be one of {', '.join(ACT2FN)}, got {table[name]!r}")


def _check_even(table: Mapping[str, Any], part: str, key: str) -> None:
    """RoPE rotates pairs of dimensions of a head, and sinusoidal positions are pairs of sine and cosine."""
    width, heads = table.get("hidden_size", 0), table.get("num_attention_heads", 1)
    found = {"hidden_size": width} if table.get("positions") == "learned" else {"d_model": table.get("d_model", 0)}
    if part == "text":
        found = {"head_dim": table["head_dim"]} if table.get("head_dim") else {"hidden_size": width // heads}
    for name, value in found.items():
        if value % 2:
            what = f"give heads an even width, got {value}" if part == "text" else f"be even, got {value}"
            raise UserError(f"config key `{key}.{name}` must {what}; positions use pairs of dimensions")


def _check_range(table: Mapping[str, Any], name: str, key: str, limit: float, least: float | None = None) -> None:
    """Check that a number is above 0 (or at least `least`) and below `limit`."""
    if name not in table:
        return
    value = table[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (0 < value < limit or value == least):
        low = "above 0" if least is None else f"at least {least:g}"
        raise UserError(f"config key `{key}.{name}` must be a number {low} and below {limit:g}, got {value!r}")
