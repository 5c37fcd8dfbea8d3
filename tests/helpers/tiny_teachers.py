"""Tiny GLM-ASR and Whisper models with random weights and windows of 2 s, and Qwen3-ASR in its original layout."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import teacher_tokenizer
from transformers import (
    AddedToken,
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from arkasr.model.build import _init_convolutions
from arkasr.model.speech_lm.auto import SpeechLM, wrap

GLM_TOKENS = ["<|user|>", "<|observation|>", "<|assistant|>", "<|pad|>", "<|begin_of_audio|>", "<|end_of_audio|>"]
WHISPER_TOKENS = ["<|startoftranscript|>", "<|en|>", "<|zh|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
STATES = 100  # of one encoder window, 20 ms each


@lru_cache
def glm_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = copy.deepcopy(teacher_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": GLM_TOKENS})
    return tokenizer


def glm(seed: int = 0, states: int = STATES) -> SpeechLM:
    """Build a GLM-ASR with windows of `states` encoder states."""
    tokenizer, spread = glm_tokenizer(), {"initializer_range": 0.2}
    audio = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"model_type": "llama", "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    config = GlmAsrConfig(
        audio_config=audio | spread | {"num_mel_bins": 16, "max_position_embeddings": states},
        text_config=text | spread | {"eos_token_id": tokenizer.convert_tokens_to_ids("<|user|>")},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = _init_convolutions(GlmAsrForConditionalGeneration(config))
    return wrap(hf.eval(), tokenizer)


@lru_cache
def whisper_tokenizer() -> PreTrainedTokenizerBase:
    model = json.loads(teacher_tokenizer().backend_tokenizer.to_str())["model"]
    vocab = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": WHISPER_TOKENS})
    tokenizer.add_tokens([AddedToken(f"<|{0.02 * n:.2f}|>") for n in range(STATES + 1)])
    return tokenizer


def save_whisper(folder: Path, seed: int = 0, multilingual: bool = True) -> WhisperForConditionalGeneration:
    """Write a Whisper model with windows of 2 s and 40 decoder positions to a folder, and return it."""
    tokenizer = whisper_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in (*WHISPER_TOKENS, "<|endoftext|>")}
    sizes = {"d_model": 32, "num_mel_bins": 16, "max_source_positions": STATES, "max_target_positions": 40}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 2, f"{part}_ffn_dim": 64}
    ends = {"eos_token_id": ids["<|endoftext|>"], "pad_token_id": ids["<|endoftext|>"]}
    start = {"decoder_start_token_id": ids["<|startoftranscript|>"], "bos_token_id": ids["<|endoftext|>"]}
    config = WhisperConfig(vocab_size=len(tokenizer) + 5, init_std=0.2, **sizes, **ends, **start)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _init_convolutions(WhisperForConditionalGeneration(config)).eval()
    generation = model.generation_config
    generation.update(**ends, **start, suppress_tokens=[3, 4], begin_suppress_tokens=[5, ids["<|endoftext|>"]])
    generation.is_multilingual, generation.no_timestamps_token_id = multilingual, ids["<|notimestamps|>"]
    generation._from_model_config = False  # otherwise loading replaces it
    if multilingual:
        generation.lang_to_id = {name: ids[name] for name in ("<|en|>", "<|zh|>")}
        generation.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def save_original_qwen(lm: SpeechLM, folder: Path) -> dict[str, torch.Tensor]:
    """Write a Qwen3-ASR model in the original layout, with configuration keys that transformers does not know."""
    audio, text = (lm.hf.config.to_dict()[part] for part in ("audio_config", "text_config"))
    kept = {"d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "num_mel_bins", "output_dim"}
    kept |= {"n_window", "n_window_infer", "downsample_hidden_size"}
    audio = {k: v for k, v in audio.items() if k in kept} | {"model_type": "qwen3_asr_audio_encoder"}
    rope = {"mrope_section": [3, 3, 2], "interleaved": True, "mrope_interleaved": True, "rope_type": "default"}
    text = {k: v for k, v in text.items() if k not in ("rope_parameters", "model_type", "layer_types")}
    text |= {"rope_theta": lm.hf.config.text_config.rope_parameters["rope_theta"], "num_experts": 128}
    thinker = {
        "model_type": "qwen3_asr",
        "audio_config": audio | {"max_source_positions": 1500, "conv_chunksize": 500, "is_decoder": False},
        "text_config": text | {"model_type": "qwen3_asr_text", "rope_scaling": rope | {"type": "default"}},
        "audio_token_id": lm.hf.config.audio_token_id,
        "initializer_range": 0.02,
    }
    config = {"model_type": "qwen3_asr", "support_languages": ["English"], "thinker_config": thinker}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    lm.tokenizer.save_pretrained(folder)
    places = {
        "model.multi_modal_projector.linear_1": "thinker.audio_tower.proj1",
        "model.multi_modal_projector.linear_2": "thinker.audio_tower.proj2",
        "model.audio_tower": "thinker.audio_tower",
        "model.language_model": "thinker.model",
        "lm_head": "thinker.lm_head",
    }
    state = {}
    for key, value in lm.hf.state_dict().items():
        place = next(place for place in places if key.startswith(f"{place}."))
        state[places[place] + key.removeprefix(place)] = value.clone()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return state
