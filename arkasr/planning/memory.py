"""Memory of one GPU during training, in bytes, by item and by phase of one step. docs/plan.md lists the formulas.

Transcripts are assumed to have the maximum number of tokens, so the result also holds for a student that never
generates a stop token.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from arkasr.config.schema import DistillConfig, ModelConfig
from arkasr.distributions.chunked_head import GPU_GATHERED, block_rows
from arkasr.model.generation.schedule import GPU
from arkasr.planning.activations import (
    FLOAT,
    activations,
    adapter_activations,
    attention_widths,
    decoder_positions,
    dropout_masks,
    forward_activations,
)
from arkasr.planning.layout import BatchShape, ShardingLayout
from arkasr.planning.model_sizes import ParameterCounts

ID = 8  # bytes of a token id
ALWAYS = ["weights", "adamw", "teacher weights", "teacher"]
ALWAYS += ["copy of decoder", "kv cache", "next-token logits", "token tables"]  # addresses of captured steps


def cache_shape(config: Any, batch: BatchShape) -> tuple[int, int]:
    """Return the rows and the slots per row that a rollout allocates on a GPU.

    Args:
        config: Configuration of the student.
        batch: One micro-batch.

    Returns:
        Transcripts and longest length, each rounded up as `arkasr.model.generation.schedule` does.
    """
    rows = max(1, math.ceil(batch.transcripts))
    length = decoder_positions(config, batch) / batch.transcripts + 1
    return GPU.rows(rows), GPU.length(math.ceil(length))


def kv_cache(config: Any, rows: float, length: float, compute: int) -> float:
    """Return the size of a key-value cache.

    Args:
        config: Configuration of the student.
        rows: Number of transcripts.
        length: Slots per transcript.
        compute: Bytes per element.

    Returns:
        Bytes.
    """
    text = config.text_config
    return text.num_hidden_layers * 2 * attention_widths(text)[1] * length * rows * compute


def token_tables(rows: float, length: float, top_k: int) -> float:
    """Return the size of the tables of chosen tokens and of their top k.

    Args:
        rows: Number of transcripts.
        length: Slots per transcript.
        top_k: Number of top tokens per slot.

    Returns:
        Bytes.
    """
    return rows * length * (1 + top_k) * ID


def _gathered(counts: ParameterCounts, compute: int, reshard: bool) -> tuple[float, float]:
    """Return the bytes of gathered weights in a rollout (all) and in a training pass (two blocks and the rest)."""
    some = counts.outside + 2 * max(counts.encoder_block, counts.decoder_block) if reshard else counts.total
    adapters = sum(part.parameters for part in counts.lora.values())
    return (counts.total + adapters) * compute, (some + adapters) * compute


def training_state(counts: ParameterCounts, trained: int, layout: ShardingLayout) -> dict[str, float]:
    """Return the student's state: one element per parameter, and three more per trained parameter.

    Args:
        counts: Parameters of the student.
        trained: Number of trained parameters, without LoRA adapters.
        layout: Sharding and element sizes.

    Returns:
        Bytes of `weights`, `gradients` and `adamw` (two moments).
    """
    adapters = sum(part.parameters for part in counts.lora.values())
    per_trained = (layout.trained or layout.weight) / layout.shards
    return {
        "weights": (counts.total - trained) * layout.weight / layout.shards + (trained + adapters) * per_trained,
        "gradients": (trained + adapters) * per_trained,
        "adamw": 2 * (trained + adapters) * per_trained,
    }


def student_items(
    config: Any,
    counts: ParameterCounts,
    trained: int,
    batch: BatchShape,
    layout: ShardingLayout,
    model: ModelConfig,
) -> dict[str, float]:
    """Return the student's memory items, for any objective.

    Args:
        config: Configuration of the student.
        counts: Parameters of the student.
        trained: Number of trained parameters, without LoRA adapters.
        batch: One micro-batch.
        layout: Sharding and element sizes.
        model: The section `model`: frozen parts and adapters.

    Returns:
        Bytes by item.
    """
    rollout, gradient = _gathered(counts, layout.compute, layout.reshard) if layout.wrapped else (0.0, 0.0)
    untouched = set(model.frozen) - set(model.adapted)
    encoder, decoder = activations(config, batch, layout.compute, untouched, layout.recompute)
    more = adapter_activations(config, batch, counts.lora, layout, model.lora.dropout)
    masks = dropout_masks(config, batch, model.trained if model.dropout else (), layout)
    table = 0 if "decoder" in model.frozen else config.text_config.vocab_size * config.text_config.hidden_size
    return training_state(counts, trained, layout) | {
        "weights gathered for decoding": rollout,
        "weights gathered for training": gradient,
        "encoder activations": encoder + more["encoder"] + masks["encoder"],
        "decoder activations": decoder + more["decoder"] + masks["decoder"],
        "head gradient": table * (FLOAT + layout.compute),
    }


def head_items(
    text: Any, batch: BatchShape, layout: ShardingLayout, dense: bool, distill: DistillConfig | None = None
) -> dict[str, float]:
    """Return the memory items of a loss. Logits and rows of the head exist in parts, whose size is that on a GPU.

    Args:
        text: The student's `text_config`.
        batch: One micro-batch.
        layout: Element sizes.
        dense: Whether the loss reads the student's logits of the whole vocabulary.
        distill: The section `distill`, None for supervised training.

    Returns:
        Bytes by item.
    """
    positions = batch.transcripts * batch.tokens
    part = FLOAT * text.vocab_size * min(positions, block_rows(text.vocab_size, "cuda"))
    items = {"logits": part} if dense else {}
    if distill is not None and not dense:
        items["gathered head rows"] = layout.compute * min(
            positions * 2 * distill.top_k * text.hidden_size, GPU_GATHERED
        )
    if distill is not None and distill.diagnose_every:
        items["logits for diagnostics"] = part
    return items


def decoding_items(
    config: Any,
    counts: ParameterCounts,
    batches: Sequence[tuple[BatchShape, int]],
    layout: ShardingLayout,
) -> dict[str, float]:
    """Return what captured decoding steps use. It keeps its address between calls, so it exists in all phases.

    Args:
        config: Configuration of the student.
        counts: Parameters of the student.
        batches: Pairs of a batch that is decoded and the number of top tokens that are kept per position.
        layout: Sharding and element sizes.

    Returns:
        Bytes by item. Empty without batches.
    """
    if not batches:
        return {}
    shapes = [(*cache_shape(config, batch), top_k) for batch, top_k in batches]
    return {
        "copy of decoder": counts.decoder * layout.compute if layout.wrapped or layout.merged else 0.0,
        "kv cache": max(kv_cache(config, rows, length, layout.compute) for rows, length, _ in shapes),
        "next-token logits": max(rows for rows, *_ in shapes) * config.text_config.vocab_size * FLOAT,
        "token tables": sum(token_tables(*shape) for shape in shapes),
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
    gathered = _gathered(counts, layout.teacher, True)[1] if layout.teacher_shards > 1 else 0.0
    return {
        "teacher weights": counts.total * layout.teacher / layout.teacher_shards,
        "teacher activations": gathered + forward_activations(config, batch.for_scoring(), layout.teacher),
        "teacher logits": batch.transcripts * batch.tokens * vocab_size * FLOAT,
    }


def phase_peaks(items: dict[str, float], accumulate: bool) -> dict[str, float]:
    """Return the peak of each phase of one step.

    The audio is encoded in the rollout, and its activations are kept from there on. In the backward pass gradients
    appear as activations are freed, those of the decoder first. Teacher logits exist until the loss is computed, and
    twice for a short time if the mapper leaves positions out. Logits of the student exist twice, with their gradient or
    without blocked tokens. Gathered rows of the head have a float32 gradient in the backward pass.

    Args:
        items: Bytes by item. Absent items count as 0.
        accumulate: Whether gradients are kept between micro-batches (`train.accumulate` above 1).

    Returns:
        Bytes by phase: `rollout`, `teacher`, `student`, `backward`, `optimizer` and `evaluation`. Phases that do not
        occur are absent.
    """
    item = defaultdict(float, items)
    early = item["gradients"] if accumulate else 0.0
    always = sum(item[name] for name in ALWAYS)
    both = item["encoder activations"] + item["decoder activations"]
    kept = item["encoder activations"] + early
    during = max(both + early, item["encoder activations"] + (early + item["gradients"]) / 2, item["gradients"])
    read = max(2 * item["logits"], item["gathered head rows"], 2 * item["logits for diagnostics"])
    peaks = {
        "rollout": item["weights gathered for decoding"] + item["rollout activations"] + kept,
        "teacher": max(item["teacher activations"], 2 * item["teacher logits"]) + kept,
        "student": item["weights gathered for training"] + both + item["teacher logits"] + read + early,
        "backward": item["weights gathered for training"]
        + item["head gradient"]
        + max(2 * item["logits"], 3 * item["gathered head rows"])
        + during,
        "optimizer": item["gradients"],
        "evaluation": item["weights gathered for decoding"] + item["evaluation activations"],
    }
    absent = {name for name in ("rollout", "evaluation") if f"{name} activations" not in items}
    absent |= {"teacher"} if "rollout" in absent else set()
    return {name: always + peak for name, peak in peaks.items() if name not in absent}
