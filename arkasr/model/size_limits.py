"""Checks of config.json before a model is built: a wrong size can use up memory, and a kernel's name can run code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arkasr.errors import UserError

# Largest value of each size. These are several times those of the largest published recognisers.
LIMITS = {
    **dict.fromkeys(("hidden_size", "d_model", "downsample_hidden_size", "output_dim"), 2**16),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 2**18),
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers"), 512),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads"), 1024),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 1024),
    **dict.fromkeys(("head_dim", "num_mel_bins"), 1024),
    **dict.fromkeys(("n_window", "n_window_infer"), 2**20),
    **dict.fromkeys(("max_position_embeddings", "max_source_positions", "max_target_positions"), 2**24),
    **dict.fromkeys(("vocab_size", "sliding_window"), 2**24),
    "merge_factor": 64,
}
# transformers downloads and runs other names as kernels from the Hub, even without `trust_remote_code`.
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")


def check_config(config: Mapping[str, Any], place: str) -> None:
    """Check the sizes in a config.json, at any depth, and that it asks for no foreign code or quantised weights.

    Args:
        config: Its content.
        place: Folder or Hub id, for error messages.

    Raises:
        UserError: A size is not a whole number or out of bounds, heads do not divide the width, the attention is not
            one of `ATTENTION`, or the weights are quantised.
    """
    for name in ("attn_implementation", "_attn_implementation"):
        if (value := config.get(name)) is not None and value not in ATTENTION:
            allowed = ", ".join(ATTENTION)
            raise UserError(
                f"{place}: {name} in config.json must be one of {allowed}, got {value!r}; delete it: kernels of the "
                "Hub are never run"
            )
    if config.get("quantization_config") is not None:
        raise UserError(f"{place}: quantization_config in config.json: quantised weights cannot be read; use others")
    check_table(config, f"{place}: {{}} in config.json")
    for name, value in config.items():
        if name.endswith("_config") and value is not None:
            if not isinstance(value, Mapping):
                raise UserError(f"{place}: {name} in config.json must be a table, got {value!r}; copy the model again")
            check_config(value, f"{place}: {name}")


def check_table(table: Mapping[str, Any], template: str) -> None:
    """Check the sizes of one table: whole numbers within `LIMITS`, and heads that divide the width.

    Args:
        table: Keys and values of a configuration. Other keys are ignored.
        template: Start of an error message, with {} for the key.

    Raises:
        UserError: A size is wrong.
    """
    for name in LIMITS.keys() & table.keys():
        value, limit = table[name], LIMITS[name]
        if value is not None and (type(value) is not int or not 1 <= value <= limit):
            raise UserError(
                f"{template.format(name)} must be a whole number from 1 to {limit}, got {value!r}; correct it"
            )
    for width_key, heads_key in (
        ("hidden_size", "num_attention_heads"),
        ("d_model", "encoder_attention_heads"),
        ("num_attention_heads", "num_key_value_heads"),
    ):
        width, heads = table.get(width_key), table.get(heads_key)
        free = width_key == "hidden_size" and table.get("head_dim") is not None
        if width and heads and width % heads and not free:
            raise UserError(
                f"{template.format(heads_key)} must divide {width_key} {width}, got {heads}; change one of them"
            )
