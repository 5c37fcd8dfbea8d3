"""The original layout of Qwen3-ASR, which SGLang and vLLM read: `thinker_config` and tensors `thinker.*`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import Qwen3ASRConfig, WhisperFeatureExtractor

from arkasr.errors import UserError

CHUNK = 100  # frames per chunk, by which the engines count audio tokens
NAMES = {  # transformers' to original names
    "model.multi_modal_projector.linear_1.": "thinker.audio_tower.proj1.",
    "model.multi_modal_projector.linear_2.": "thinker.audio_tower.proj2.",
    "model.audio_tower.": "thinker.audio_tower.",
    "model.language_model.": "thinker.model.",
    "lm_head.": "thinker.lm_head.",
}
AUDIO_KEYS = (
    *("num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "output_dim"),
    *("n_window", "n_window_infer", "downsample_hidden_size", "activation_function", "activation_dropout"),
    *("attention_dropout", "dropout", "scale_embedding", "initializer_range"),
)
NOT_TEXT = ("rope_parameters", "model_type", "layer_types", "transformers_version")
POSITIONS, CONV_CHUNKS = 1500, 500  # of the published models. Neither changes a result.


def original_config(config: Qwen3ASRConfig) -> dict[str, Any]:
    """Convert a configuration to the original form, the inverse of `qwen3_asr.converted`.

    RoPE is written with the sections of multimodal positions (mrope), which gives the same result for audio.

    Args:
        config: The configuration.

    Returns:
        Content of config.json.

    Raises:
        UserError: The original form cannot represent the configuration.
    """
    audio: Any = config.audio_config
    text: Any = config.text_config
    rope = dict(text.rope_parameters)
    found = {
        "audio_config.n_window": (audio.n_window, CHUNK // 2),
        "text_config.rope_parameters.rope_type": (rope["rope_type"], "default"),
    }
    for key, (value, expected) in found.items():
        if value != expected:
            raise UserError(
                f"{key} must be {expected!r} in the published layout, got {value!r}; write the native layout"
            )
    third = text.head_dim * 10 // 64  # of the published sections: [24, 20, 20]
    sections = [text.head_dim // 2 - 2 * third, third, third]
    mrope = {"mrope_interleaved": True, "interleaved": True, "mrope_section": sections}
    written = {key: value for key, value in text.to_dict().items() if key not in NOT_TEXT}
    written |= {"model_type": "qwen3_asr_text", "rope_theta": rope["rope_theta"]}
    thinker = {
        "model_type": "qwen3_asr",
        "audio_config": {key: getattr(audio, key) for key in AUDIO_KEYS}
        | {"model_type": "qwen3_asr_audio_encoder", "max_source_positions": POSITIONS, "conv_chunksize": CONV_CHUNKS},
        "text_config": written | {"rope_scaling": mrope | {"rope_type": "default", "type": "default"}},
        "audio_token_id": config.audio_token_id,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    return {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
        "thinker_config": thinker,
    }


def to_original(folder: Path, config: Qwen3ASRConfig, num_mel: int) -> None:
    """Convert a folder in transformers' layout to the original layout.

    Args:
        folder: The folder, with one or several weight files, changed in place.
        config: The model's configuration.
        num_mel: Number of mel filters M.

    Raises:
        UserError: See `original_config`.
    """
    text = json.dumps(original_config(config), indent=2) + "\n"
    for file in folder.glob("*.safetensors"):
        state = {original_name(name): tensor for name, tensor in load_file(file).items()}
        save_file(state, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        table = json.loads(index.read_text(encoding="utf-8"))
        table["weight_map"] = {original_name(name): file for name, file in table["weight_map"].items()}
        index.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(text, encoding="utf-8")
    (folder / "processor_config.json").unlink()
    WhisperFeatureExtractor(num_mel, return_attention_mask=True).save_pretrained(folder)


def original_name(name: str) -> str:
    """Return the original name of one tensor.

    Args:
        name: Name in transformers, such as "model.audio_tower.ln_post.weight".

    Returns:
        Original name, such as "thinker.audio_tower.ln_post.weight".
    """
    begin = next(begin for begin in NAMES if name.startswith(begin))
    return NAMES[begin] + name.removeprefix(begin)
