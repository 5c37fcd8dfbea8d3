"""Memory of one GPU during training, in bytes, by item and by phase of one step. docs/plan.md lists the formulas.

Activation sizes are those that autograd keeps for the layers of transformers with fused attention. A test compares them
with autograd's saved tensors. Transcripts are assumed to have the maximum number of tokens, so the result also holds
for a student that never generates a stop token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from arkasr.planning.flops import FRAMES, PROMPT, audio_tokens
from arkasr.planning.model_sizes import ParameterCounts

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class ShardingLayout:
    """How parameters and activations are stored on the GPUs."""

    shards: int  # ranks that hold one copy of the student together
    teacher_shards: int  # ranks that hold one copy of the teacher together
    weight: int  # bytes per element of the master weights
    compute: int  # bytes per element of activations and gathered weights
    teacher: int  # bytes per element of the teacher's weights
    recompute: bool = False  # whether activation checkpointing is used
    reshard: bool = True  # whether a block's gathered weights are freed after its forward pass


@dataclass(frozen=True)
class BatchShape:
    """One micro-batch of one rank."""

    clips: float
    seconds: float  # per clip
    transcripts: float
    tokens: float  # per transcript, stop token included


def _attention_widths(text: Any) -> tuple[int, int]:
    """Return the total widths of queries and of keys."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head, text.num_key_value_heads * head


def encoder_layer(audio: Any, compute: int) -> float:
    """Return what autograd keeps of one encoder block: 9 vectors of its width and 2 of its MLP.

    Args:
        audio: The `audio_config` of the model.
        compute: Bytes per element.

    Returns:
        Bytes per position.
    """
    return compute * (9 * audio.hidden_size + 2 * audio.intermediate_size)


def decoder_layer(text: Any, compute: int) -> float:
    """Return what autograd keeps of one decoder block: 6 vectors of its width, those of attention, and 4 of its MLP.

    The two norms of a block compute in float32. With 16-bit activations their inputs are kept a second time.

    Args:
        text: The `text_config` of the model.
        compute: Bytes per element.

    Returns:
        Bytes per position.
    """
    queries, keys = _attention_widths(text)
    kept = 6 * text.hidden_size + 2 * queries + 2 * keys + 4 * text.intermediate_size
    return compute * kept + (FLOAT * text.hidden_size if compute < FLOAT else 0)


def activations(
    config: Any, batch: BatchShape, layout: ShardingLayout, frozen: Collection[str] = ()
) -> tuple[float, float]:
    """Return what autograd keeps of one pass with gradient.

    With activation checkpointing each block keeps only its input, and one block at a time is recomputed in backward.

    Args:
        config: Configuration of the student.
        batch: One micro-batch.
        layout: Element sizes, and whether activation checkpointing is used.
        frozen: Parts of the model that are not trained.

    Returns:
        Bytes of encoder and adapter, and bytes of the decoder.
    """
    audio, text, b = config.audio_config, config.text_config, layout.compute
    states = batch.clips * batch.seconds * FRAMES / (2 if config.model_type == "arkasr" else 8)
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens - 1
    positions = batch.transcripts * length
    stem = b * states * (2 * audio.num_mel_bins + 7 * audio.hidden_size + 1.25 * text.hidden_size)
    encoder = _blocks(encoder_layer(audio, b), b * audio.hidden_size, audio.num_hidden_layers, layout.recompute)
    decoder = _blocks(decoder_layer(text, b), b * text.hidden_size, text.num_hidden_layers, layout.recompute)
    last_norm = 8 * text.hidden_size * positions
    return (0.0 if "encoder" in frozen else stem + encoder * states), decoder * positions + last_norm


def _blocks(block: float, block_input: float, layers: int, recompute: bool) -> float:
    return layers * block_input + block if recompute else layers * block


def forward_activations(config: Any, batch: BatchShape, compute: int) -> float:
    """Return what a pass without gradient holds at one time: the input of one block, and the work of its MLP.

    Args:
        config: Configuration of the student or teacher.
        batch: One micro-batch.
        compute: Bytes per element.

    Returns:
        Bytes, the larger of encoder and decoder.
    """
    if config.model_type == "whisper":  # always encodes windows of 30 s
        states, width, ffn = batch.clips * config.max_source_positions, config.d_model, config.encoder_ffn_dim
        return compute * states * (3 * width + 2 * ffn)
    audio, text = config.audio_config, config.text_config
    states = batch.clips * batch.seconds * FRAMES / (8 if config.model_type == "qwen3_asr" else 2)
    encoder = states * (3 * audio.hidden_size + 2 * audio.intermediate_size)
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens
    return compute * max(encoder, batch.transcripts * length * (3 * text.hidden_size + 3 * text.intermediate_size))


def kv_cache(config: Any, batch: BatchShape, compute: int) -> float:
    """Return the size of the key-value cache at the maximum length, with one layer's copy while it grows.

    Args:
        config: Configuration of the student.
        batch: One micro-batch.
        compute: Bytes per element.

    Returns:
        Bytes.
    """
    text = config.text_config
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens
    one_layer = 2 * _attention_widths(text)[1] * length * batch.transcripts * compute
    return (text.num_hidden_layers + 1) * one_layer


def _gathered(counts: ParameterCounts, layout: ShardingLayout, compute: int, shards: int) -> tuple[float, float]:
    """Return the bytes of gathered weights in a rollout (all) and in a training pass (two blocks and the rest).

    A single process shards nothing. It keeps casts of all weights if it computes in a narrower dtype.
    """
    if shards == 1:
        casts = counts.total * compute if compute < layout.weight else 0.0
        return casts, casts
    some = counts.outside + 2 * max(counts.encoder_block, counts.decoder_block) if layout.reshard else counts.total
    return counts.total * compute, some * compute


def training_state(counts: ParameterCounts, trained: int, layout: ShardingLayout) -> dict[str, float]:
    """Return the student's state: one element per parameter, and three more per trained parameter.

    Args:
        counts: Parameters of the student.
        trained: Number of trained parameters.
        layout: Sharding and element sizes.

    Returns:
        Bytes of `weights`, `gradients` and `adamw` (two moments).
    """
    per_parameter = layout.weight / layout.shards
    return {
        "weights": counts.total * per_parameter,
        "gradients": trained * per_parameter,
        "adamw": 2 * trained * per_parameter,
    }


def student_items(
    config: Any,
    counts: ParameterCounts,
    trained: int,
    batch: BatchShape,
    layout: ShardingLayout,
    frozen: Collection[str],
) -> dict[str, float]:
    """Return the student's memory items, for any objective.

    Args:
        config: Configuration of the student.
        counts: Parameters of the student.
        trained: Number of trained parameters.
        batch: One micro-batch.
        layout: Sharding and element sizes.
        frozen: Parts of the model that are not trained.

    Returns:
        Bytes by item.
    """
    rollout, gradient = _gathered(counts, layout, layout.compute, layout.shards)
    encoder, decoder = activations(config, batch, layout, frozen)
    table = 0 if "decoder" in frozen else config.text_config.vocab_size * config.text_config.hidden_size
    return training_state(counts, trained, layout) | {
        "weights gathered for rollout": rollout,
        "weights gathered for training": gradient,
        "encoder activations": encoder,
        "decoder activations": decoder,
        "head gradient": table * (FLOAT + layout.compute),
        "optimizer buffers": trained * layout.weight / layout.shards,
    }


def rollout_items(config: Any, batch: BatchShape, layout: ShardingLayout) -> dict[str, float]:
    """Return the memory items of a rollout. Logits of the next token are float32 and masked in place.

    Args:
        config: Configuration of the student.
        batch: One micro-batch.
        layout: Sharding and element sizes.

    Returns:
        Bytes by item.
    """
    logits = batch.transcripts * config.text_config.vocab_size * FLOAT
    return {
        "rollout activations": forward_activations(config, batch, layout.compute),
        "kv cache": kv_cache(config, batch, layout.compute),
        "next-token logits": logits,
    }


def teacher_items(config: Any, counts: ParameterCounts, batch: BatchShape, layout: ShardingLayout) -> dict[str, float]:
    """Return the memory items of a teacher in this process, which encodes the audio once per transcript.

    Args:
        config: Configuration of the teacher.
        counts: Parameters of the teacher.
        batch: One micro-batch.
        layout: Sharding and element sizes.

    Returns:
        Bytes by item.
    """
    vocab_size = getattr(config, "text_config", config).vocab_size
    gathered = _gathered(counts, layout, layout.teacher, layout.teacher_shards)[1] if layout.teacher_shards > 1 else 0.0
    scored = BatchShape(batch.transcripts, batch.seconds, batch.transcripts, batch.tokens)
    return {
        "teacher weights": counts.total * layout.teacher / layout.teacher_shards,
        "teacher activations": gathered + forward_activations(config, scored, layout.teacher),
        "teacher logits": batch.transcripts * batch.tokens * vocab_size * FLOAT,
    }


def phase_peaks(items: dict[str, float], accumulate: bool) -> dict[str, float]:
    """Return the peak of each phase of one step.

    The audio is encoded in the rollout, and its activations are kept from there on. In the backward pass gradients
    appear as activations are freed, those of the decoder first. Teacher logits exist until the loss is computed, and
    twice for a short time if the mapper leaves positions out.

    Args:
        items: Bytes by item. Absent items count as 0.
        accumulate: Whether gradients are kept between micro-batches (`train.accumulate` above 1).

    Returns:
        Bytes by phase: `rollout`, `teacher`, `student`, `backward` and `optimizer`, the last three without a rollout.
    """
    item = defaultdict(float, items)
    early = item["gradients"] if accumulate else 0.0
    always = item["weights"] + item["adamw"] + item["teacher weights"] + item["teacher"]
    both = item["encoder activations"] + item["decoder activations"]
    kept = item["encoder activations"] + early
    during = max(both + early, item["encoder activations"] + (early + item["gradients"]) / 2, item["gradients"])
    peaks = {
        "rollout": item["weights gathered for rollout"]
        + max(item["rollout activations"], item["kv cache"] + item["next-token logits"])
        + kept,
        "teacher": max(item["teacher activations"], 2 * item["teacher logits"]) + kept,
        "student": item["weights gathered for training"] + both + item["teacher logits"] + 2 * item["logits"] + early,
        "backward": item["weights gathered for training"] + item["head gradient"] + during + 2 * item["logits"],
        "optimizer": item["gradients"] + item["optimizer buffers"],
    }
    if "kv cache" not in items:
        peaks = {name: peaks[name] for name in ("student", "backward", "optimizer")}
    return {name: always + peak for name, peak in peaks.items()}
