"""Memory per GPU and operations of one training step. docs/plan.md describes the model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from arkasr.config.schema import PARTS, Config, DataConfig
from arkasr.errors import UserError
from arkasr.model.sharding import mesh_shape
from arkasr.planning import flops, memory, model_sizes
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.layout import BatchShape, ShardingLayout
from arkasr.plugins import registry

GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class ModelOutline:
    """A model without its weights."""

    config: Any  # configuration of transformers
    counts: model_sizes.ParameterCounts
    source: str  # where its sizes were found
    hf: Any = None  # the model on the meta device


def bytes_per_element(dtype: str) -> int:
    """Return the size of one element.

    Args:
        dtype: torch's name of the dtype, such as "bfloat16".

    Returns:
        Bytes.
    """
    return getattr(torch, dtype).itemsize


def trained_parameters(counts: model_sizes.ParameterCounts, frozen: Collection[str]) -> int:
    """Count the parameters that are trained, without LoRA adapters.

    Args:
        counts: Parameters of the student.
        frozen: Parts whose own weights are not trained (`ModelConfig.frozen`).

    Returns:
        The number of parameters.
    """
    return sum(getattr(counts, part) for part in PARTS if part not in frozen)


def with_adapters(student: ModelOutline, config: Config) -> ModelOutline:
    """Count the LoRA adapters of a run.

    Args:
        student: The model without adapters.
        config: The run's configuration.

    Returns:
        The outline with `counts.lora`.

    Raises:
        UserError: `model.lora.targets` names other layers than those of the model.
    """
    return replace(student, counts=replace(student.counts, lora=model_sizes.count_adapters(student.hf, config.model)))


def batch_shape(config: Config, assumptions: Assumptions, largest: bool) -> BatchShape:
    """Return the micro-batch of one rank.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about the corpus.
        largest: True for a full batch with transcripts of the maximum number of tokens, False for a mean batch.

    Returns:
        The batch.

    Raises:
        UserError: The mean length of clips is above `data.max_clip_seconds`.
    """
    data, rollout, seconds = config.data, config.rollout, assumptions.clip_seconds
    if seconds > data.max_clip_seconds:
        raise UserError(
            f"--clip_seconds {seconds:g}: must be at most data.max_clip_seconds={data.max_clip_seconds:g}, because "
            "longer clips are left out; correct one of them"
        )
    filled = _padded_seconds(data) if largest else data.max_seconds * assumptions.batch_fill
    clips = max(min(filled / seconds, data.max_cuts), 1.0)
    tokens = assumptions.tokens_per_second * seconds + 1
    cap = 2 + rollout.tokens_per_second * seconds if rollout.tokens_per_second else rollout.max_new_tokens
    if config.objective == "sft":
        most = data.text_bytes_per_second * seconds or math.inf  # a token has at least one byte
        longest = min(tokens * assumptions.max_length_ratio, max(most, tokens))
        return BatchShape(clips, seconds, clips, longest if largest else tokens)
    tokens = min(rollout.max_new_tokens, cap) if largest else min(tokens, rollout.max_new_tokens, cap)
    return BatchShape(clips, seconds, clips * rollout.samples, tokens)


def _padded_seconds(data: DataConfig) -> float:
    """Return the bound of padded audio in one batch. A clip above `data.max_seconds` forms its own batch."""
    alone = data.max_clip_seconds if data.max_clip_seconds < math.inf else 0.0
    return max(data.max_seconds, alone)


def evaluation_shape(config: Config, assumptions: Assumptions) -> BatchShape:
    """Return the largest batch of dev clips of one rank, with transcripts of the maximum number of tokens.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.

    Returns:
        The batch.
    """
    seconds, decode = assumptions.clip_seconds, config.decode
    clips = max(1.0, min(decode.max_seconds / seconds, config.train.eval_clips / assumptions.gpus))
    cap = 2 + decode.tokens_per_second * seconds if decode.tokens_per_second else decode.max_new_tokens
    return BatchShape(clips, seconds, clips, min(decode.max_new_tokens, cap))


def mixed_dtypes(config: Config) -> bool:
    """Return whether weights have another data type than the computation, so that FSDP2 casts them.

    Args:
        config: The run's configuration.

    Returns:
        True as in `arkasr.training.ranks.Ranks.of`.
    """
    dtypes = {config.fsdp.compute_dtype, config.model.dtype, *(["float32"] if config.model.adapted else [])}
    return len(dtypes) > 1


def sharding_layout(config: Config, assumptions: Assumptions) -> ShardingLayout:
    """Return how the models are stored on its GPUs.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about the hardware.

    Returns:
        The layout.

    Raises:
        UserError: The GPUs do not divide into `fsdp.replicate` groups.
    """
    node_size = min(assumptions.gpus_per_node, assumptions.gpus)
    shape, options = mesh_shape(assumptions.gpus, config.fsdp.replicate, node_size), config.teacher.options
    return ShardingLayout(
        shards=shape[-1],
        teacher_shards=shape[-1] if config.fsdp.teacher == "shard" else 1,
        weight=bytes_per_element(config.model.dtype),
        compute=bytes_per_element(config.fsdp.compute_dtype),
        teacher=bytes_per_element(options.get("dtype", "bfloat16")),
        wrapped=assumptions.gpus > 1 or mixed_dtypes(config),
        recompute=config.fsdp.activation_checkpointing == "blocks",
        reshard=config.fsdp.reshard_after_forward,
        merged="decoder" in config.model.adapted,
        trained=bytes_per_element("float32") if config.model.adapted else 0,
    )


def memory_gib(
    config: Config,
    assumptions: Assumptions,
    student: ModelOutline,
    teachers: Sequence[ModelOutline],
    teacher_gib: float = 0.0,
) -> dict[str, dict[str, float]]:
    """Return the memory of one GPU for the largest batch.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained.
        teachers: The models of a teacher that computes in the same process.
        teacher_gib: GiB of a teacher whose models are not known.

    Returns:
        GiB per GPU: `items`, and the `peaks` of the phases of one step.
    """
    batch, layout = batch_shape(config, assumptions, largest=True), sharding_layout(config, assumptions)
    text, counts = student.config.text_config, student.counts
    trained = trained_parameters(counts, config.model.frozen)
    items = memory.student_items(student.config, counts, trained, batch, layout, config.model)
    decoded: list[tuple[BatchShape, int]] = []
    if config.objective == "sft":
        frames = batch.clips * flops.audio_tokens(student.config, batch.seconds) if config.train.ctc_weight else 0
        items |= memory.head_items(text, batch, layout, dense=True)
        items["logits"] += (model_sizes.ctc_tokens(config.train) or text.vocab_size) * frames * (layout.compute + 4)
    else:
        items |= memory.head_items(text, batch, layout, needs_full_distribution(config), config.distill)
        items["rollout activations"] = memory.forward_activations(student.config, batch, layout.compute)
        decoded.append((batch, config.distill.top_k))
        items |= _teacher_items(teachers, batch, layout)
        items |= {"teacher": teacher_gib * GIB} if teacher_gib else {}
    if config.train.eval_every:
        evaluated = evaluation_shape(config, assumptions)
        items["evaluation activations"] = memory.forward_activations(student.config, evaluated, layout.compute)
        decoded.append((evaluated, 0))
    if not decoded:
        del items["weights gathered for decoding"]
    items |= memory.decoding_items(student.config, counts, decoded, layout)
    peaks = memory.phase_peaks(items, config.train.accumulate > 1)
    return {key: {k: v / GIB for k, v in sizes.items()} for key, sizes in (("items", items), ("peaks", peaks))}


def _teacher_items(teachers: Sequence[ModelOutline], batch: BatchShape, layout: ShardingLayout) -> dict[str, float]:
    """Return the items of several models, which score one after the other. Their weights and logits exist together."""
    items: dict[str, float] = {}
    for teacher in teachers:
        for name, size in memory.teacher_items(teacher.config, teacher.counts, batch, layout).items():
            before = items.get(name, 0.0)
            items[name] = max(before, size) if name == "teacher activations" else before + size
    return items


def workload(batch: BatchShape, times: float, prompts: tuple[float, float], rollout: bool) -> flops.Workload:
    """Return the work of several equal batches.

    Args:
        batch: One micro-batch.
        times: Number of batches.
        prompts: Text tokens of the prompt, student and teacher.
        rollout: Whether the student generates the transcripts.

    Returns:
        The workload.
    """
    tokens = batch.transcripts * batch.tokens * times
    return flops.Workload(
        clips=batch.clips * times,
        seconds=batch.clips * batch.seconds * times,
        transcripts=batch.transcripts * times,
        tokens=tokens,
        rollout_tokens=tokens if rollout else 0.0,
        teacher_tokens=tokens,
        prompts=prompts,
    )


def needs_full_distribution(config: Config) -> bool:
    """Return whether the loss reads the student's whole distribution, as far as its attributes show.

    Args:
        config: The run's configuration.

    Returns:
        True if the loss plugin has `needs = "shared"` or a true `tail`.
    """
    if config.objective == "sft":
        return False
    loss = registry.create("loss", config.loss.name, config.loss.options)
    return getattr(loss, "needs", "topk") == "shared" or getattr(loss, "tail", False)


def caches_encoder(config: Config) -> bool:
    """Return whether a run encodes each clip once only. Its first epoch and a limit that is too low are not considered.

    Args:
        config: The run's configuration.

    Returns:
        True if the encoder is frozen in the whole run and its states are cached.
    """
    return config.train.cache_encoder > 0 and "encoder" not in config.model.trained


def step_flops(
    config: Config,
    student: Any,
    teachers: Sequence[tuple[Any, float]],
    load: flops.Workload,
    dense: bool,
    lora: Mapping[str, model_sizes.AdapterCounts],
) -> dict[str, float]:
    """Return the operations of one step.

    Args:
        config: The run's configuration.
        student: Configuration of the student model.
        teachers: Pairs of a model of the teacher and the text tokens of its prompt: the configurations of the models
            that compute in this process and are known.
        load: What the step processes.
        dense: Result of `needs_full_distribution`.
        lora: LoRA adapters by part.

    Returns:
        FLOPs by phase.
    """
    frozen, adapters = config.model.frozen, {part: counts.parameters for part, counts in lora.items()}
    encoded = flops.audio_encoder(student, load.seconds / load.clips)
    cached = load.clips * (encoded["features"] + encoded["encoder"]) if caches_encoder(config) else 0.0
    if config.objective == "sft":
        work = flops.supervised_step(
            student, load, frozen, config.train.ctc_weight, adapters, model_sizes.ctc_tokens(config.train)
        )
        return work | {"student": work["student"] - cached}
    twice = config.augment.masks or config.model.drops_audio
    work = flops.distillation_step(student, None, load, config.distill.top_k, frozen, dense, adapters, twice)
    work["rollout"] -= cached
    for teacher, prompt in teachers:
        work["teacher"] += flops.teacher_scoring(teacher, replace(load, prompts=(load.prompts[0], prompt)))
    return work
