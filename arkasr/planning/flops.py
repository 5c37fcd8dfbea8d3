"""Floating-point operations (FLOPs) of models, computed from their configurations and input lengths.

Matrix products and convolutions are counted with two operations per multiply-add, as `torch.utils.flop_counter` does:

- A linear layer of N weights: 2 N per position forward, 4 N backward (Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1).
- Attention of one layer: 4 n c q for n queries of width q over c keys (Chowdhery et al. 2022, arXiv:2204.02311,
  appendix B). Keys hidden by a causal mask are counted.

Not counted: normalisation layers, activation functions, Fourier transforms, top-k, and activation recomputation.

All numbers are floats, so that means over a batch can be passed. Attention is then slightly underestimated, because it
grows faster than linearly with length. `config` is the configuration of an arkasr, qwen3_asr, glmasr or whisper model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from arkasr.config.schema import PARTS

FRAMES = 100  # mel frames per second
BINS = 201  # frequency bins that the mel filters read
PROMPT = {"arkasr": 10, "qwen3_asr": 16, "glmasr": 14, "whisper": 4}  # text tokens of the prompt, published tokenizers


@dataclass(frozen=True)
class Workload:
    """What one step processes, added up over micro-batches (and over ranks, for a global count)."""

    clips: float
    seconds: float  # of audio, all clips together
    transcripts: float  # one per clip, or `rollout.samples` per clip
    tokens: float  # student tokens of all transcripts, stop tokens included
    rollout_tokens: float = 0.0  # those of `tokens` that the student generated
    teacher_tokens: float = 0.0  # teacher tokens of the same transcripts
    prompts: tuple[float, float] = (0.0, 0.0)  # text tokens of the prompt, student and teacher


def _layer(positions: float, context: float, width: int, queries: int, keys: int, ffn: int, matrices: int) -> float:
    """One block: its linear maps at every position, and attention of every position over `context` keys."""
    weights = width * (2 * queries + 2 * keys) + matrices * width * ffn
    return positions * (2 * weights + 4 * context * queries)


def audio_tokens(config: Any, seconds: float) -> float:
    """Return the number of positions that one clip takes in the decoder's prompt.

    Args:
        config: Configuration of the model.
        seconds: Length of the clip.

    Returns:
        The number of audio tokens, 0 for Whisper, whose decoder uses cross attention.
    """
    frames = seconds * FRAMES
    if config.model_type == "arkasr":
        return max(frames / 2 // config.merge_factor, 1)
    if config.model_type == "glmasr":
        return max(frames / 2 // 4, 1)
    if config.model_type == "qwen3_asr":
        chunk = 2 * config.audio_config.n_window
        return frames // chunk * math.ceil(chunk / 8) + math.ceil(frames % chunk / 8)
    return 0


def audio_encoder(config: Any, seconds: float) -> dict[str, float]:
    """Count the forward pass of one clip through the audio encoder and adapter.

    Args:
        config: Configuration of the model.
        seconds: Length of the clip.

    Returns:
        FLOPs of `features` (mel filters), `encoder` (convolutions and blocks) and `adapter`.
    """
    kind, frames = config.model_type, seconds * FRAMES
    if kind == "qwen3_asr":
        return _chunked_encoder(config, frames)
    if kind == "whisper":
        d, layers, heads_width, ffn = config.d_model, config.encoder_layers, config.d_model, config.encoder_ffn_dim
        mel, frames, windows = config.num_mel_bins, 2 * config.max_source_positions, 1
    else:
        audio = config.audio_config
        d, layers, heads_width, ffn = (
            audio.hidden_size,
            audio.num_hidden_layers,
            audio.hidden_size,
            audio.intermediate_size,
        )
        mel, windows = audio.num_mel_bins, 1
        if kind == "glmasr":  # windows of 30 s, each padded to its full length
            window = 2 * audio.max_position_embeddings
            frames, windows = window, math.ceil(frames / window)
    states = math.ceil(frames / 2) if kind != "arkasr" else frames / 2
    stem = 6 * mel * d * frames + 6 * d * d * states
    blocks = layers * _layer(states, states, d, heads_width, heads_width, ffn, 2)
    work = {"features": 2 * BINS * mel * frames, "encoder": stem + blocks, "adapter": _adapter(config, states)}
    return {name: windows * each for name, each in work.items()}


def _adapter(config: Any, states: float) -> float:
    if config.model_type == "whisper":
        return 0.0
    factor, width = getattr(config, "merge_factor", 4), config.text_config.hidden_size
    return states // factor * 2 * (factor * config.audio_config.hidden_size * 2 * width + 2 * width * width)


def _chunked_encoder(config: Any, frames: float) -> dict[str, float]:
    """Qwen3-ASR: three strided 3 x 3 convolutions over padded chunks, attention inside windows, two linear maps."""
    audio = config.audio_config
    chunk, c, d = 2 * audio.n_window, audio.downsample_hidden_size, audio.d_model
    mel, length, channels, stem = audio.num_mel_bins, chunk, 1, 0.0
    chunks = math.ceil(max(frames, 1) / chunk)
    for _ in range(3):
        mel, length = math.ceil(mel / 2), math.ceil(length / 2)
        stem, channels = stem + chunks * 18 * channels * c * mel * length, c
    stem += chunks * length * 2 * c * mel * d
    tokens, window = audio_tokens(config, frames / FRAMES), length * (audio.n_window_infer // chunk)
    windows, rest = divmod(tokens, window)
    full, last = (_layer(n, n, d, d, d, audio.encoder_ffn_dim, 2) for n in (window, rest))
    blocks = audio.encoder_layers * (windows * full + last)
    features, adapter = 2 * BINS * audio.num_mel_bins * frames, 2 * tokens * (d * d + d * audio.output_dim)
    return {"features": features, "encoder": stem + blocks, "adapter": adapter}


def decoder_blocks(config: Any, positions: float, context: float | None = None) -> float:
    """Count the forward pass of one sequence through the decoder's blocks, without the head.

    Args:
        config: Configuration of the model.
        positions: Number of positions that are processed.
        context: Keys that each position attends to, None for `positions`, as in one pass over the whole sequence.

    Returns:
        FLOPs.
    """
    context = positions if context is None else context
    if config.model_type != "whisper":
        text = config.text_config
        head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        sizes = (text.hidden_size, text.num_attention_heads * head_width, text.num_key_value_heads * head_width)
        return text.num_hidden_layers * _layer(positions, context, *sizes, text.intermediate_size, 3)
    d, audio_states = config.d_model, config.max_source_positions
    self_attention = _layer(positions, context, d, d, d, config.decoder_ffn_dim, 2)
    cross_keys = 4 * audio_states * d * d  # keys and values of the audio states, once per sequence
    return config.decoder_layers * (self_attention + positions * (4 * d * d + 4 * audio_states * d) + cross_keys)


def head(config: Any, positions: float, tokens: int = 0) -> float:
    """Count the forward pass of the language model head over the whole vocabulary, or of the CTC head.

    Args:
        config: Configuration of the model.
        positions: Number of positions.
        tokens: Number of tokens of the head. 0: those of the model.

    Returns:
        FLOPs.
    """
    text = config if config.model_type == "whisper" else config.text_config
    return 2 * positions * (tokens or text.vocab_size) * text.hidden_size


def _decoder_pass(config: Any, load: Workload, tokens: float, prompt: float) -> float:
    """The decoder's blocks over all prompts and transcripts in one pass. The last token of each is not an input."""
    seconds = load.seconds / load.clips
    length = audio_tokens(config, seconds) + prompt + tokens / load.transcripts - 1
    return load.transcripts * decoder_blocks(config, length)


def _backward_factor(part: str, frozen: Collection[str], lora: Collection[str]) -> int:
    """Backward work of a part per forward work: 2 if trained, 1 if only adapters or parts below are, else 0."""
    below = PARTS[: PARTS.index(part)]
    passes = part in lora or any(other not in frozen or other in lora for other in below)
    return 2 if part not in frozen else int(passes)


def pass_with_gradient(
    config: Any,
    load: Workload,
    frozen: Collection[str],
    logits: float,
    chunked_logits: float = 0.0,
    audio_encoded: bool = False,
    lora: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, float]:
    """Count one forward and backward pass of the student over audio and transcripts.

    Args:
        config: Configuration of the student.
        load: What the step processes.
        frozen: Parts of the model that are not trained, of `PARTS`.
        logits: FLOPs of the head, forward.
        chunked_logits: FLOPs of logits that `chunked_head.sum_in_parts` computes. It computes their gradient in the
            forward pass.
        audio_encoded: Whether the rollout has encoded the audio already, with gradient.
        lora: Parameters of LoRA adapters by part. They take 2 operations per parameter and position forward, and 4
            backward.

    Returns:
        FLOPs of `student` (forward) and `backward`.
    """
    audio = {name: load.clips * work for name, work in audio_encoder(config, load.seconds / load.clips).items()}
    decoder = _decoder_pass(config, load, load.tokens, load.prompts[0]) + logits
    forward = audio | {"decoder": decoder}
    added = _adapter_passes(config, load, lora)
    backward = sum(_backward_factor(name, frozen, lora) * forward[name] + 2 * added.get(name, 0.0) for name in PARTS)
    forward = {name: work + added.get(name, 0.0) for name, work in forward.items()}
    decoder = forward["decoder"]
    chunked_logits *= 1 + _backward_factor("decoder", frozen, lora)
    return {"student": (decoder if audio_encoded else sum(forward.values())) + chunked_logits, "backward": backward}


def _adapter_passes(config: Any, load: Workload, lora: Mapping[str, int]) -> dict[str, float]:
    """Count the forward pass through LoRA adapters, by part."""
    seconds = load.seconds / load.clips
    tokens = audio_tokens(config, seconds)
    length = tokens + load.prompts[0] + load.tokens / load.transcripts - 1
    states = tokens if config.model_type == "qwen3_asr" else seconds * FRAMES / 2
    positions = {"encoder": load.clips * states, "decoder": load.transcripts * length}
    return {part: 2 * size * positions[part] for part, size in lora.items()}


def rollout(config: Any, load: Workload) -> dict[str, float]:
    """Count the generation of the student's transcripts, with one prompt in the cache per transcript.

    Work on rows that have ended while longer ones are generated is not counted.

    Args:
        config: Configuration of the student.
        load: What the step processes.

    Returns:
        FLOPs of `rollout` (audio encoder and prefill) and `decode` (every token of a transcript after the first).
    """
    mean_tokens, seconds = load.rollout_tokens / load.transcripts, load.seconds / load.clips
    prompt = audio_tokens(config, seconds) + load.prompts[0]
    audio = load.clips * sum(audio_encoder(config, seconds).values())
    share = load.rollout_tokens / load.tokens  # of the transcripts that the student generates
    prefill = load.transcripts * (decoder_blocks(config, prompt) + head(config, 1))
    later = load.rollout_tokens - share * load.transcripts
    decode = decoder_blocks(config, later, prompt + mean_tokens / 2 + 1) + head(config, later)
    return {"rollout": audio + share * prefill, "decode": decode}


def teacher_scoring(config: Any, load: Workload) -> float:
    """Count the scoring of all transcripts by a teacher, which encodes the audio once per transcript.

    Args:
        config: Configuration of the teacher.
        load: What the step processes.

    Returns:
        FLOPs, with the logits of the whole vocabulary at the transcripts' tokens.
    """
    audio = load.transcripts * sum(audio_encoder(config, load.seconds / load.clips).values())
    decoder = _decoder_pass(config, load, load.teacher_tokens, load.prompts[1])
    return audio + decoder + head(config, load.teacher_tokens)


def supervised_step(
    config: Any,
    load: Workload,
    frozen: Collection[str] = (),
    ctc_weight: float = 0.0,
    lora: Mapping[str, int] = MappingProxyType({}),
    ctc_tokens: int = 0,
) -> dict[str, float]:
    """Count one step of supervised training.

    Args:
        config: Configuration of the student.
        load: What the step processes.
        frozen: Parts of the model that are not trained.
        ctc_weight: Weight of the auxiliary CTC loss. Above 0, its head is trained on the audio tokens. With 1, the
            decoder is not used.
        lora: Parameters of LoRA adapters by part.
        ctc_tokens: Number of tokens of the CTC head. 0: those of the model.

    Returns:
        FLOPs by phase: `student` and `backward`.
    """
    rows = load.clips * audio_tokens(config, load.seconds / load.clips) if ctc_weight else 0
    by_ctc = head(config, rows, ctc_tokens)
    if ctc_weight == 1:
        others = {part: size for part, size in lora.items() if part != "decoder"}
        work = pass_with_gradient(config, load, {*frozen} - {"decoder"}, by_ctc, lora=others)
        decoder = _decoder_pass(config, load, load.tokens, load.prompts[0])
        return {"student": work["student"] - decoder, "backward": work["backward"] - 2 * decoder}
    return pass_with_gradient(config, load, frozen, by_ctc, head(config, load.tokens), lora=lora)


def distillation_step(
    student: Any,
    teacher: Any | None,
    load: Workload,
    top_k: int,
    frozen: Collection[str] = (),
    dense: bool = False,
    lora: Mapping[str, int] = MappingProxyType({}),
    encodes_twice: bool = False,
) -> dict[str, float]:
    """Count one step of on-policy distillation.

    Args:
        student: Configuration of the student.
        teacher: Configuration of the teacher, None if it computes in another process.
        load: What the step processes.
        top_k: Number k of top tokens per model (`distill.top_k`).
        frozen: Parts of the student that are not trained.
        dense: Whether the loss compares distributions over the whole vocabulary.
        lora: Parameters of LoRA adapters by part. Rollouts use merged weights.
        encodes_twice: Whether the student is scored with masks or dropout, so that it encodes the audio again.

    Returns:
        FLOPs by phase: `rollout`, `decode`, `teacher`, `student` and `backward`.
    """
    support_logits = 4 * load.tokens * top_k * student.text_config.hidden_size
    logits, chunked_logits = (0.0, head(student, load.tokens)) if dense else (support_logits, 0.0)
    work = rollout(student, load) if load.rollout_tokens else {"rollout": 0.0, "decode": 0.0}
    work |= {"teacher": teacher_scoring(teacher, load) if teacher is not None else 0.0}
    work["rollout"] += _adapter_passes(student, load, lora).get("encoder", 0.0)
    gradient = pass_with_gradient(
        student, load, frozen, logits, chunked_logits, audio_encoded=not encodes_twice, lora=lora
    )
    return work | gradient
