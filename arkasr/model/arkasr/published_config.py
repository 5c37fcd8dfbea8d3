"""The published config.json. It is flat: Qwen2's keys at the top level, the encoder's in `whisper_config`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, WhisperConfig

from arkasr.errors import UserError

ENCODER_KEYS = {  # key of WhisperConfig: key of GlmAsrEncoderConfig
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
    "num_mel_bins": "num_mel_bins",
    "max_source_positions": "max_position_embeddings",
    "activation_function": "hidden_act",
    "attention_dropout": "attention_dropout",
    "init_std": "initializer_range",
}
ENCODER_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
# Values that this model implements, the default first.
ALLOWED = {"adapter_type": ("mlp",), "use_rope": (True,), "rope_ratio": (1,), "mlp_adapter_act": ("gelu", "relu")}
OWN_KEYS = ("audio_token_id", "merge_factor", "mask_padding", "instruction")
SHARED_KEYS = ("pad_token_id", "bos_token_id", "eos_token_id", "initializer_range", "tie_word_embeddings")
NOT_TEXT = {"whisper_config", "model_type", "architectures", "dtype", "torch_dtype", "auto_map"} | {*ALLOWED, *OWN_KEYS}


def nested_from_flat(flat: dict[str, Any], place: str) -> dict[str, Any]:
    """Convert a published configuration to the native nested form.

    Absent keys get the defaults of the authors' classes (WhisperConfig and Qwen2Config, with untied embeddings). Keys
    of the top level that are not read here go to the decoder's configuration, as in the authors' class, which is a
    Qwen2Config.

    Args:
        flat: The published form.
        place: Folder, Hub id or file, for error messages.

    Returns:
        Keyword arguments of ArkasrConfig.

    Raises:
        UserError: A key asks for a computation that this model does not implement.
    """
    whisper = flat["whisper_config"]
    if not isinstance(whisper, dict):
        raise UserError(
            f"{place}: whisper_config in config.json must be a table of the encoder's sizes, got {whisper!r}"
        )
    for key, allowed in ALLOWED.items():
        for table in (flat, whisper):
            if table.get(key, allowed[0]) not in allowed:
                names = " or ".join(map(repr, allowed))
                raise UserError(f"{place}: {key} in config.json must be {names}, got {table[key]!r}")
    factor = flat.get("merge_factor", 4)
    if type(factor) is not int or factor < 1:
        raise UserError(f"{place}: merge_factor in config.json must be an integer of at least 1, got {factor!r}")
    encoder = WhisperConfig(**whisper)
    nested = {
        "model_type": "arkasr",
        "audio_config": {key: getattr(encoder, whisper_key) for whisper_key, key in ENCODER_KEYS.items()},
        "text_config": {key: value for key, value in flat.items() if key not in NOT_TEXT},
        "projector_hidden_act": flat.get("mlp_adapter_act", "gelu"),
        "tie_word_embeddings": False,
        "dtype": flat.get("dtype", flat.get("torch_dtype")),
    }
    return nested | {key: flat[key] for key in (*OWN_KEYS, *SHARED_KEYS) if key in flat}


def flat_from_nested(config: PreTrainedConfig) -> dict[str, Any]:
    """Convert an ArkasrConfig to the published form, with key names that transformers 4 and 5 read.

    `mask_padding` and `instruction`, which the authors' code does not have, are written only if they differ from the
    default.

    Args:
        config: The configuration.

    Returns:
        Content of a config.json.

    Raises:
        UserError: The published form cannot represent it: the encoder has learned positions, another RoPE or
            grouped heads, or the adapter
            another activation.
    """
    _check_representable(config)
    audio, text = config.audio_config, config.text_config.to_diff_dict()
    rope = text.pop("rope_parameters")
    flat = {key: value for key, value in text.items() if key not in NOT_TEXT}
    flat["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        flat["rope_scaling"] = rope
    flat["tie_word_embeddings"] = config.tie_word_embeddings
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if flat.get(key) is None:
            flat[key] = getattr(config, key, None)
    default = type(config)()
    own = {key: getattr(config, key) for key in ("mask_padding", "instruction")}
    whisper = {whisper_key: getattr(audio, key) for whisper_key, key in ENCODER_KEYS.items()}
    return flat | {
        "model_type": "arkasr",
        "architectures": ["ArkasrForConditionalGeneration"],
        "torch_dtype": str(config.dtype).removeprefix("torch.") if config.dtype else None,
        "whisper_config": {"model_type": "whisper"} | whisper,
        "adapter_type": "mlp",
        "mlp_adapter_act": config.projector_hidden_act,
        "use_rope": True,
        "audio_token_id": config.audio_token_id,
        "merge_factor": config.merge_factor,
        **{key: value for key, value in own.items() if value != getattr(default, key)},
    }


def _check_representable(config: PreTrainedConfig) -> None:
    audio = config.audio_config
    found = {
        "audio_config.positions": (audio.positions, ("rotary",)),
        "audio_config.rope_parameters": (audio.rope_parameters, (ENCODER_ROPE,)),
        "audio_config.num_key_value_heads": (audio.num_key_value_heads, (audio.num_attention_heads,)),
        "projector_hidden_act": (config.projector_hidden_act, ALLOWED["mlp_adapter_act"]),
    }
    for key, (value, allowed) in found.items():
        if value not in allowed:
            names = " or ".join(map(repr, allowed))
            raise UserError(f"{key} must be {names} in the published layout, got {value!r}; write the native layout")
