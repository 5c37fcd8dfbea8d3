"""Time of one training step, by phase. docs/plan.md describes the model."""

from __future__ import annotations

from collections.abc import Sequence

from arkasr.config.schema import Config
from arkasr.model.generation.schedule import GPU
from arkasr.planning import kernels, memory
from arkasr.planning.assumptions import Assumptions
from arkasr.planning.forecast import TERA, ModelOutline, batch_shape, sharding_layout, trained_parameters
from arkasr.planning.kernels import Overhead

MICRO = 1e-6


def phase_seconds(
    config: Config,
    assumptions: Assumptions,
    student: ModelOutline,
    teachers: Sequence[ModelOutline],
    work: dict[str, float],
) -> dict[str, float]:
    """Return the time of one step.

    Passes with gradient overlap with their collectives, so the longer of both counts.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained.
        teachers: The models of a teacher that computes in the same process.
        work: FLOPs of one GPU by phase.

    Returns:
        Seconds by phase, with `optimizer` as the last.
    """
    layout, repeats = sharding_layout(config, assumptions), config.train.accumulate
    overheads = _overheads(config, assumptions, student, teachers)
    if layout.recompute:  # one more forward pass beside two of backward, or beside one with frozen weights
        work = work | {"backward": (2.0 if config.model.adapted else 1.5) * work["backward"]}
    seconds = {name: pass_seconds(assumptions, work[name], overheads[name].times(repeats)) for name in overheads}
    copied = repeats * student.counts.total * (layout.weight / layout.shards + layout.compute) * layout.wrapped
    copies = copied / (assumptions.bandwidth * 1e9)
    gather = repeats * _gather_seconds(assumptions, layout.compute * student.counts.total, layout.shards)
    trained = trained_parameters(student.counts, config.model.frozen)
    trained += sum(adapters.parameters for adapters in student.counts.lora.values())
    if "teacher" in seconds:
        teacher = sum(model.counts.total for model in teachers) * layout.teacher
        gather_teacher = repeats * _gather_seconds(assumptions, teacher, layout.teacher_shards)
        seconds["teacher"] = max(seconds["teacher"], gather_teacher)
        seconds["rollout"] += gather + copies
        rolled = {"rollout": seconds.pop("rollout"), "decode": decoding_seconds(config, assumptions, student, work)}
        seconds = rolled | seconds
    reduce = repeats * _reduce_seconds(assumptions, 4 * trained, layout.shards)
    seconds["student"] = max(seconds["student"] + copies, gather)
    seconds["backward"] = max(seconds["backward"] + copies, gather + reduce)
    updated = kernels.OPTIMIZER_PASSES * trained * (layout.trained or layout.weight) / layout.shards
    return seconds | {"optimizer": pass_seconds(assumptions, 0.0, Overhead(updated))}


def pass_seconds(assumptions: Assumptions, operations: float, overhead: Overhead) -> float:
    """Return the time of one pass: that of the GPU, or that in which the host starts its kernels if it is longer.

    Args:
        assumptions: Assumptions about the hardware.
        operations: FLOPs of its matrix products.
        overhead: What it does beside them.

    Returns:
        Seconds.
    """
    products = operations / (assumptions.tflops * TERA * assumptions.mfu)
    others = overhead.moved / (assumptions.bandwidth * 1e9)
    return max(products + others, overhead.kernels * assumptions.launch_us * MICRO)


def decoding_seconds(config: Config, assumptions: Assumptions, student: ModelOutline, work: dict[str, float]) -> float:
    """Return the time of the captured decoding steps of a rollout.

    A step reads the decoder's weights and the cache, or computes, whichever takes longer. In addition, each of its
    kernels takes a minimum time. A finished batch is noticed between one and two periods of the schedule later.

    Args:
        config: The run's configuration.
        assumptions: Assumptions about hardware and corpus.
        student: The model that is trained.
        work: FLOPs of one GPU by phase.

    Returns:
        Seconds, for all micro-batches.
    """
    mean, largest = (batch_shape(config, assumptions, largest) for largest in (False, True))
    compute = sharding_layout(config, assumptions).compute
    longest = mean.tokens * assumptions.max_length_ratio + 1.5 * GPU.every
    steps = config.train.accumulate * max(0.0, min(longest, largest.tokens) - 1)  # the prefill gives the first token
    cache = memory.kv_cache(student.config, *memory.cache_shape(student.config, mean), compute)
    read = steps * (student.counts.decoder * compute + cache) / (assumptions.bandwidth * 1e9)
    products = work["decode"] / (assumptions.tflops * TERA * assumptions.mfu)
    compiled = config.rollout.compile == "on"  # `auto` compiles a shape only after many steps
    minimum = kernels.decoding_step(student.config, compiled) * assumptions.kernel_us * MICRO
    return max(read, products) + steps * minimum


def _overheads(
    config: Config, assumptions: Assumptions, student: ModelOutline, teachers: Sequence[ModelOutline]
) -> dict[str, Overhead]:
    """Return the overhead of each phase of one micro-batch, except for decoding steps and the optimizer."""
    batch, layout = batch_shape(config, assumptions, largest=False), sharding_layout(config, assumptions)
    encoder, decoder = kernels.passes(student.config, batch, layout.compute)
    both = encoder + decoder
    in_backward = decoder if "encoder" in set(config.model.frozen) - set(config.model.adapted) else both
    backward = in_backward.times(3 if layout.recompute else 2)
    if config.objective == "sft":
        scored = kernels.logits(student.config, batch.transcripts * batch.tokens)
        return {"student": both + scored, "backward": backward}
    prefill = kernels.passes(student.config, batch.prompts(), layout.compute)[1]
    scoring = Overhead()
    for teacher in teachers:
        audio, text = kernels.passes(teacher.config, batch.for_scoring(), layout.teacher)
        scoring += audio + text + kernels.logits(teacher.config, batch.transcripts * batch.tokens)
    return {"rollout": encoder + prefill, "teacher": scoring, "student": decoder, "backward": backward}


def _gather_seconds(assumptions: Assumptions, size: float, ranks: int) -> float:
    """Return the time in which each of some ranks receives `size` bytes, of which each holds an equal part."""
    if ranks == 1:
        return 0.0
    inside = ranks <= assumptions.gpus_per_node
    return size / (1e9 * (assumptions.node_network if inside else assumptions.network))


def _reduce_seconds(assumptions: Assumptions, size: float, shards: int) -> float:
    """Return the time of adding up gradients inside groups of ranks, and then their parts over all groups."""
    groups = assumptions.gpus // shards
    over_groups = _gather_seconds(assumptions, 2 * size / shards, assumptions.gpus) if groups > 1 else 0.0
    return _gather_seconds(assumptions, size, shards) + over_groups
