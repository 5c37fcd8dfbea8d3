"""Memory per GPU, operations and time of one training step. docs/plan.md describes the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from arkasr.config.schema import PARTS, Config
from arkasr.distributions.chunked_head import ROWS
from arkasr.model.sharding import mesh_shape
from arkasr.planning import flops, memory, model_sizes
from arkasr.plugins import registry

GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class Assumptions:
    """What a configuration does not contain. Every field is an option of `arkasr plan`."""

    gpus: int  # number of GPUs or processes
    gpus_per_node: int = 8  # GPUs per machine, for fsdp.replicate=0
    gpu_memory: float = 80.0  # GiB per GPU
    tflops: float = 989.0  # dense peak per GPU in the compute dtype, TFLOP/s
    bandwidth: float = 3350.0  # memory bandwidth per GPU, GB/s
    network: float = 25.0  # bandwidth from one GPU to the others, GB/s
    mfu: float = 0.4  # share of the peak that passes over audio and text reach
    layer_ms: float = 0.8  # minimum time per decoder layer and generated token, ms
    hours: float = 0.0  # hours of audio in one epoch, 0 if unknown
    clip_seconds: float = 12.0  # mean length of the clips, seconds
    tokens_per_second: float = 3.5  # transcript tokens per second of audio
    max_length_ratio: float = 1.5  # ratio of the longest to the mean transcript length per batch
    batch_fill: float = 0.95  # mean share of data.max_seconds that a batch fills
    reserved_memory: float = 2.0  # GiB per GPU that are not available for tensors


@dataclass(frozen=True)
class ModelOutline:
    """A model without its weights."""

    config: Any  # configuration of transformers
    counts: model_sizes.ParameterCounts
    source: str  # where its sizes were found


def bytes_per_element(dtype: str) -> int:
    """Return the size of one element.

    Args:
        dtype: torch's name of the dtype, such as "bfloat16".

    Returns:
        Bytes.
    """
    return getattr(torch, dtype).itemsize


def trained_parameters(counts: model_sizes.ParameterCounts, frozen: list[str]) -> int:
    """Count the parameters that are trained.

    Args:
        counts: Parameters of the student.
        frozen: Parts that are not trained (`model.freeze`).

    Returns:
        The number of parameters.
    """
    return sum(getattr(counts, part) for part in PARTS if part not in frozen)


def batch_shape(config: Config, assumptions: Assumptions, largest: bool) -> memory.BatchShape:
    """Return the micro-batch of one rank.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about the corpus.
        largest: True for a full batch with transcripts of the maximum number of tokens, False for a mean batch.

    Returns:
        The batch.
    """
    share = 1.0 if largest else assumptions.batch_fill
    seconds = assumptions.clip_seconds
    clips = max(min(config.data.max_seconds * share / seconds, config.data.max_cuts), 1.0)
    rollout, tokens = config.rollout, assumptions.tokens_per_second * seconds + 1
    cap = 2 + rollout.tokens_per_second * seconds if rollout.tokens_per_second else rollout.max_new_tokens
    if config.objective == "sft":
        return memory.BatchShape(clips, seconds, clips, tokens)
    tokens = min(rollout.max_new_tokens, cap) if largest else min(tokens, rollout.max_new_tokens, cap)
    return memory.BatchShape(clips, seconds, clips * rollout.samples, tokens)


def sharding_layout(config: Config, assumptions: Assumptions) -> memory.ShardingLayout:
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
    return memory.ShardingLayout(
        shards=shape[-1],
        teacher_shards=shape[-1] if config.fsdp.teacher == "shard" else 1,
        weight=bytes_per_element(config.model.dtype),
        compute=bytes_per_element(config.fsdp.compute_dtype),
        teacher=bytes_per_element(options.get("dtype", "bfloat16")),
        recompute=config.fsdp.activation_checkpointing == "blocks",
        reshard=config.fsdp.reshard_after_forward,
    )


def memory_gib(
    config: Config, assumptions: Assumptions, student: ModelOutline, teacher: ModelOutline | None
) -> dict[str, dict[str, float]]:
    """Return the memory of one GPU for the largest batch.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained.
        teacher: A teacher that computes in the same process, or None.

    Returns:
        GiB per GPU: `items`, and the `peaks` of the phases of one step.
    """
    batch, layout = batch_shape(config, assumptions, largest=True), sharding_layout(config, assumptions)
    text, frozen = student.config.text_config, config.model.freeze
    trained = trained_parameters(student.counts, frozen)
    items = memory.student_items(student.config, student.counts, trained, batch, layout, frozen)
    if config.objective == "sft":
        frames = batch.clips * flops.audio_tokens(student.config, batch.seconds) if config.train.ctc_weight else 0
        del items["weights gathered for rollout"]
        items["logits"] = text.vocab_size * (4 * ROWS + frames * (layout.compute + 4))
    else:
        items |= memory.rollout_items(student.config, batch, layout)
        items |= memory.teacher_items(teacher.config, teacher.counts, batch, layout) if teacher else {}
    peaks = memory.phase_peaks(items, config.train.accumulate > 1)
    return {key: {k: v / GIB for k, v in sizes.items()} for key, sizes in (("items", items), ("peaks", peaks))}


def workload(batch: memory.BatchShape, times: float, prompts: tuple[float, float], rollout: bool) -> flops.Workload:
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


def step_flops(
    config: Config, student: Any, teacher: Any | None, load: flops.Workload, dense: bool
) -> dict[str, float]:
    """Return the operations of one step.

    Args:
        config: The run's configuration.
        student: Configuration of the student model.
        teacher: Configuration of the teacher model, None if it computes in another process.
        load: What the step processes.
        dense: Result of `needs_full_distribution`.

    Returns:
        FLOPs by phase.
    """
    frozen = config.model.freeze
    if config.objective == "sft":
        return flops.supervised_step(student, load, frozen, config.train.ctc_weight > 0)
    return flops.distillation_step(student, teacher, load, config.distill.top_k, frozen, dense)


def phase_seconds(
    config: Config, assumptions: Assumptions, student: ModelOutline, work: dict[str, float]
) -> dict[str, float]:
    """Return the time of one step.

    Decoding is limited by memory bandwidth or by the time to launch layers, whichever is longer, for each token of
    the longest transcript. Passes with gradient overlap with their collectives, so the longer of both counts.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained.
        work: FLOPs of one GPU by phase.

    Returns:
        Seconds by phase.
    """
    batch, layout = batch_shape(config, assumptions, largest=False), sharding_layout(config, assumptions)
    repeats, network = config.train.accumulate, assumptions.network * 1e9
    rate = assumptions.tflops * TERA * assumptions.mfu
    seconds = {name: operations / rate for name, operations in work.items()}
    seconds["backward"] *= 1.5 if layout.recompute else 1.0  # one more forward pass beside two passes of backward
    trained = trained_parameters(student.counts, config.model.freeze)
    gather = repeats * layout.compute * student.counts.total / network * (layout.shards > 1)
    if "decode" in seconds:
        read = student.counts.decoder * layout.compute + memory.kv_cache(student.config, batch, layout.compute)
        layers = student.config.text_config.num_hidden_layers
        per_token = max(read / (assumptions.bandwidth * 1e9), layers * assumptions.layer_ms / 1000)
        cap = batch_shape(config, assumptions, largest=True).tokens
        seconds["rollout"] += gather
        seconds["decode"] = repeats * per_token * min(batch.tokens * assumptions.max_length_ratio, cap)
    reduce = repeats * 4 * trained / network * (layout.shards > 1)
    seconds["student"] = max(seconds["student"], gather)
    seconds["backward"] = max(seconds["backward"], gather + reduce)
    return seconds
