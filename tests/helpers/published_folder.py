"""Write model folders in the layout of the published checkpoint, with random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

Weights = dict[str, Tensor]
TRUE_SIZES = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2} | {
    "intermediate_size": 4864,
    "vocab_size": 163958,
}
TRUE_ENCODER = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
}
TINY_SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2} | {
    "intermediate_size": 40
}
TINY_ENCODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 16,
}


def published_config(sizes: dict[str, Any], encoder: dict[str, Any], **ids: int) -> dict[str, Any]:
    """Return the flat config.json: Qwen2's keys at the top level, the encoder's under `whisper_config`."""
    code = {"AutoConfig": "configuration_arkasr.ArkasrConfig"}
    code |= {"AutoModelForCausalLM": "modeling_arkasr.ArkasrForConditionalGeneration"}
    qwen = {
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": None,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
    }
    qwen |= {"attention_dropout": 0.0, "use_sliding_window": False, "sliding_window": None, "max_window_layers": 24}
    adapter = {"adapter_type": "mlp", "mlp_adapter_act": "gelu", "merge_factor": 4, "use_rope": True, "spec_aug": False}
    whisper = {"model_type": "whisper", "max_source_positions": 1500, "activation_function": "gelu", "dropout": 0.0}
    whisper |= {"decoder_layers": 32, "decoder_attention_heads": 20, "vocab_size": 51866}  # in the file, but unused
    own = {"architectures": ["ArkasrForConditionalGeneration"], "model_type": "arkasr", "auto_map": code}
    own |= {
        "max_whisper_length": 1500,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "transformers_version": "4.57.3",
    }
    return own | qwen | adapter | sizes | ids | {"whisper_config": whisper | encoder}


def published_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in the published file, by name."""
    whisper, width = config["whisper_config"], config["hidden_size"]
    d, wide, mel = whisper["d_model"], whisper["encoder_ffn_dim"], whisper["num_mel_bins"]
    shapes = {"audio_encoder.whisper.embed_positions.weight": (whisper["max_source_positions"], d)}

    def put(name: str, *shape: int, bias: bool = True) -> None:
        shapes.update({f"{name}.weight": shape} | ({f"{name}.bias": shape[:1]} if bias else {}))

    put("audio_encoder.whisper.conv1", d, mel, 3)
    put("audio_encoder.whisper.conv2", d, d, 3)
    for n in range(whisper["encoder_layers"]):
        layer = f"audio_encoder.whisper.layers.{n}"
        for part in "qkv":
            put(f"{layer}.self_attn.{part}_proj", d, d, bias=part != "k")
        put(f"{layer}.self_attn.out_proj", d, d)
        put(f"{layer}.self_attn_layer_norm", d)
        put(f"{layer}.fc1", wide, d)
        put(f"{layer}.fc2", d, wide)
        put(f"{layer}.final_layer_norm", d)
    put("audio_encoder.layer_norm", d)
    put("audio_encoder.adapting.0", 2 * width, config["merge_factor"] * d)
    put("audio_encoder.adapting.2", width, 2 * width)
    put("model.embed_tokens", config["vocab_size"], width, bias=False)
    shared = config["num_key_value_heads"] * width // config["num_attention_heads"]
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        for part, rows in {"q": width, "k": shared, "v": shared}.items():
            put(f"{layer}.self_attn.{part}_proj", rows, width)
        put(f"{layer}.self_attn.o_proj", width, width, bias=False)
        for part in ("gate", "up"):
            put(f"{layer}.mlp.{part}_proj", config["intermediate_size"], width, bias=False)
        put(f"{layer}.mlp.down_proj", width, config["intermediate_size"], bias=False)
        put(f"{layer}.input_layernorm", width, bias=False)
        put(f"{layer}.post_attention_layernorm", width, bias=False)
    put("model.norm", width, bias=False)
    put("lm_head", config["vocab_size"], width, bias=False)
    return shapes


def random_weights(config: dict[str, Any], seed: int = 2) -> Weights:
    """Draw float32 tensors with which every part affects the output: sharp attention, biases far from 0, norms from 1.

    The stop id is likely, so that some transcripts end before their token cap.
    """
    draw, weights = torch.Generator().manual_seed(seed), {}
    for name, shape in published_shapes(config).items():
        noise = torch.randn(shape, generator=draw)
        scale = 2.0 if "conv" in name or name.endswith("q_proj.weight") else 1.0
        if len(shape) == 1:
            weights[name] = 0.3 * noise + ("norm" in name and name.endswith("weight"))
        elif name.startswith("audio_encoder") and ("q_proj" in name or "k_proj" in name):
            weights[name] = 0.6 * noise
        else:
            weights[name] = scale * noise / math.sqrt(noise[0].numel())
    weights["model.embed_tokens.weight"][config["eos_token_id"]] *= 2.0
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    return weights


def write_published(folder: Path, config: dict[str, Any], w: Weights, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a folder in the published layout: flat config, one safetensors file, tokenizer and processor."""
    tokenizer.save_pretrained(folder)
    mel = config["whisper_config"]["num_mel_bins"]
    WhisperFeatureExtractor(feature_size=mel).save_pretrained(folder)
    code = {"AutoProcessor": "processing_arkasr.ArkasrProcessor"}
    processor = {"processor_class": "ArkasrProcessor", "auto_map": code, "merge_factor": 4, "audio_token": "<|audio|>"}
    processor |= {"audio_dtype": "bfloat16", "tokenizer_config": {"padding_side": "left", "model_max_length": 8192}}
    stops = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for file, content in {"config": config, "processor_config": processor, "generation_config": stops}.items():
        (folder / f"{file}.json").write_text(json.dumps(content, indent=2))
    save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
