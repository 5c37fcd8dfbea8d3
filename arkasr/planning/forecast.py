"""A run's step in numbers: memory a GPU, operations, seconds; docs/plan.md explains the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from arkasr.config.schema import Config
from arkasr.distributions.chunked_head import ROWS
from arkasr.model.sharding import mesh_shape
from arkasr.planning import flops, memory, model_sizes
from arkasr.plugins import registry

GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class Assumptions:
    """What a configuration does not say; every one is an option of `arkasr plan`.

    node: GPUs of a machine, for fsdp.replicate=0; gpu_memory: GiB; tflops: dense peak of a GPU in the compute type; bandwidth: of its memory, GB/s; network: to other
    GPUs, GB/s a GPU; mfu: share of the peak that passes over audio and text reach; layer_ms: least time of a decoder
    layer in a decoding step; hours: of audio in the corpus, 0 where that is not known; clip_seconds: mean clip;
    tokens_per_second: of transcripts, by audio; longest: of a batch's transcripts, by their mean; full: share of
    data.max_seconds that batches hold; reserve: GiB of a GPU that are not for tensors.
    """

    gpus: int
    node: int = 8
    gpu_memory: float = 80.0
    tflops: float = 989.0
    bandwidth: float = 3350.0
    network: float = 25.0
    mfu: float = 0.4
    layer_ms: float = 0.8
    hours: float = 0.0
    clip_seconds: float = 12.0
    tokens_per_second: float = 3.5
    longest: float = 1.5
    full: float = 0.95
    reserve: float = 2.0


@dataclass(frozen=True)
class Known:
    """A model without its weights, and where its sizes come from."""

    config: Any
    counts: model_sizes.Counts
    source: str


def bytes_of(dtype: str) -> int:
    """Return the bytes of a number of torch's type of that name."""
    return getattr(torch, dtype).itemsize


def trained(counts: model_sizes.Counts, frozen: list[str]) -> int:
    """Count the parameters that are trained."""
    return sum(getattr(counts, part) for part in ("encoder", "adapter", "decoder") if part not in frozen)


def batch_of(config: Config, given: Assumptions, cap: bool) -> memory.BatchShape:
    """Return a rank's batch: full, its transcripts at their cap, or as full and as long as they are on average."""
    share = 1.0 if cap else given.full
    clips = max(min(config.data.max_seconds * share / given.clip_seconds, config.data.max_cuts), 1.0)
    rollout, tokens = config.rollout, given.tokens_per_second * given.clip_seconds + 1
    bound = 2 + rollout.tokens_per_second * given.clip_seconds if rollout.tokens_per_second else rollout.max_new_tokens
    if config.objective == "sft":
        return memory.BatchShape(clips, given.clip_seconds, clips, tokens)
    tokens = min(rollout.max_new_tokens, bound) if cap else min(tokens, rollout.max_new_tokens, bound)
    return memory.BatchShape(clips, given.clip_seconds, clips * rollout.samples, tokens)


def layout_of(config: Config, given: Assumptions) -> memory.ShardingLayout:
    """Return how a run's numbers lie on its GPUs. Raises UserError where these do not make `fsdp.replicate` groups."""
    shape, options = mesh_shape(given.gpus, config.fsdp.replicate, min(given.node, given.gpus)), config.teacher.options
    return memory.ShardingLayout(
        shards=shape[-1],
        teacher_shards=shape[-1] if config.fsdp.teacher == "shard" else 1,
        weight=bytes_of(config.model.dtype),
        compute=bytes_of(config.fsdp.compute_dtype),
        teacher=bytes_of(options.get("dtype", "bfloat16")),
        recompute=config.fsdp.activation_checkpointing == "blocks",
        reshard=config.fsdp.reshard_after_forward,
    )


def memory_of(config: Config, given: Assumptions, student: Known, teacher: Known | None) -> dict[str, dict[str, float]]:
    """Return `items` and the `peaks` of a step's phases, in GiB a GPU."""
    batch, layout, frozen = batch_of(config, given, cap=True), layout_of(config, given), config.model.freeze
    text, own = student.config.text_config, trained(student.counts, frozen)
    items = memory.student_items(student.config, student.counts, own, batch, layout, frozen)
    if config.objective == "sft":
        heard = batch.clips * flops.audio_tokens(student.config, batch.seconds) if config.train.ctc_weight else 0
        del items["gathered for a rollout"]
        items["logits"] = text.vocab_size * (4 * ROWS + heard * (layout.compute + 4))
    else:
        items |= memory.rollout_items(student.config, batch, layout)
        items |= memory.teacher_items(teacher.config, teacher.counts, batch, layout) if teacher else {}
    peaks = memory.phases(items, config.train.accumulate > 1)
    return {name: {k: v / GIB for k, v in of.items()} for name, of in (("items", items), ("peaks", peaks))}


def load_of(batch: memory.BatchShape, times: float, prompts: tuple[float, float], rolled: bool) -> flops.Load:
    """Return what `times` such batches ask to be worked on."""
    tokens = batch.transcripts * batch.tokens * times
    sizes = (batch.clips * times, batch.clips * batch.seconds * times, batch.transcripts * times)
    return flops.Load(*sizes, tokens, tokens if rolled else 0.0, tokens, prompts)


def compares_all(config: Config) -> bool:
    """Tell whether the loss asks for the student's whole distributions, so far as that can be seen from outside."""
    if config.objective == "sft":
        return False
    loss = registry.create("loss", config.loss.name, config.loss.options)
    return getattr(loss, "needs", "topk") == "shared" or getattr(loss, "tail", False)


def work_of(config: Config, student: Any, teacher: Any | None, load: flops.Load, dense: bool) -> dict[str, float]:
    """Return a step's FLOPs by phase; student, teacher: their configurations; dense: see `compares_all`."""
    frozen = config.model.freeze
    if config.objective == "sft":
        return flops.supervised(student, load, frozen, config.train.ctc_weight > 0)
    return flops.distilling(student, teacher, load, config.distill.top_k, frozen, dense)


def seconds_of(config: Config, given: Assumptions, student: Known, work: dict[str, float]) -> dict[str, float]:
    """Return a step's seconds by phase; work: FLOPs of one GPU.

    Decoding takes, for each token of the longest transcript, as long as its weights and cache take to be read, or as
    its layers take to be started. Passes with gradient hide their collectives or wait for them, whichever is longer.
    """
    batch, layout, repeats = batch_of(config, given, cap=False), layout_of(config, given), config.train.accumulate
    taken = {name: flops / (given.tflops * TERA * given.mfu) for name, flops in work.items()}
    taken["backward"] *= 1.5 if layout.recompute else 1.0  # what backward doubles is done once more
    own = trained(student.counts, config.model.freeze)
    sent = repeats * layout.compute * student.counts.total / (given.network * 1e9) * (layout.shards > 1)
    if "decode" in taken:
        read = student.counts.decoder * layout.compute + memory.kv_cache(student.config, batch, layout.compute)
        layers = student.config.text_config.num_hidden_layers
        a_token = max(read / (given.bandwidth * 1e9), layers * given.layer_ms / 1000)
        taken["rollout"] += sent
        taken["decode"] = (
            repeats * a_token * min(batch.tokens * given.longest, batch_of(config, given, cap=True).tokens)
        )
    reduced = repeats * 4 * own / (given.network * 1e9) * (layout.shards > 1)
    taken["student"], taken["backward"] = max(taken["student"], sent), max(taken["backward"], sent + reduced)
    return taken
