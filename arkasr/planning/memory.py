"""What a GPU must hold while a run trains, in bytes, by item and by phase of a step; docs/plan.md explains the sums.

Bytes of activations are those that autograd keeps of transformers' layers with fused attention, which a test counts.
Transcripts are taken to be as long as their caps, so that the sums hold for a student that never stops.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from arkasr.planning.flops import FRAMES, PROMPT, audio_tokens
from arkasr.planning.model_sizes import Counts

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class ShardingLayout:
    """How numbers lie on the GPUs.

    shards: ranks that hold the student together; teacher_shards: the same for the teacher; weight, compute, teacher:
    bytes of a number of the masters, of activations and of the teacher; recompute: activations are checkpointed;
    reshard: a block's gathered weights are freed after its forward pass.
    """

    shards: int
    teacher_shards: int
    weight: int
    compute: int
    teacher: int
    recompute: bool = False
    reshard: bool = True


@dataclass(frozen=True)
class BatchShape:
    """One batch of a rank: clips of `seconds` each, transcripts of `tokens` each, the stop token included."""

    clips: float
    seconds: float
    transcripts: float
    tokens: float


def _widths(text: Any) -> tuple[int, int]:
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return text.num_attention_heads * head, text.num_key_value_heads * head


def encoder_layer(audio: Any, compute: int) -> float:
    """Bytes that one block of the encoder keeps of a position: 9 vectors of its width and 2 of its MLP."""
    return compute * (9 * audio.hidden_size + 2 * audio.intermediate_size)


def decoder_layer(text: Any, compute: int) -> float:
    """Bytes that one block of the decoder keeps of a position: 6 vectors of its width, attention's, and 4 of its MLP.

    Its two norms compute in float32, of which a 16-bit run keeps their inputs once more.
    """
    queries, keys = _widths(text)
    kept = 6 * text.hidden_size + 2 * queries + 2 * keys + 4 * text.intermediate_size
    return compute * kept + (FLOAT * text.hidden_size if compute < FLOAT else 0)


def activations(
    config: Any, batch: BatchShape, layout: ShardingLayout, frozen: Collection[str] = ()
) -> tuple[float, float]:
    """Return the bytes that a pass with gradient keeps of the encoder with the adapter, and of the decoder.

    With recompute a block keeps its input only, and the largest block is made anew in backward.
    """
    audio, text, b = config.audio_config, config.text_config, layout.compute
    states = batch.clips * batch.seconds * FRAMES / (2 if config.model_type == "arkasr" else 8)
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens - 1
    positions = batch.transcripts * length
    stem = b * states * (2 * audio.num_mel_bins + 7 * audio.hidden_size + 1.25 * text.hidden_size)
    heard = _stack(encoder_layer(audio, b), b * audio.hidden_size, audio.num_hidden_layers, layout.recompute) * states
    read = _stack(decoder_layer(text, b), b * text.hidden_size, text.num_hidden_layers, layout.recompute) * positions
    last_norm = 8 * text.hidden_size * positions
    return (0.0 if "encoder" in frozen else stem + heard), read + last_norm


def _stack(layer: float, entry: float, layers: int, recompute: bool) -> float:
    return layers * entry + layer if recompute else layers * layer


def passing(config: Any, batch: BatchShape, compute: int) -> float:
    """Return the bytes that a pass without gradient holds at one time: a block's input, and its MLP at work."""
    if config.model_type == "whisper":  # hears whole windows
        states, width, ffn = batch.clips * config.max_source_positions, config.d_model, config.encoder_ffn_dim
        return compute * states * (3 * width + 2 * ffn)
    audio, text = config.audio_config, config.text_config
    states = batch.clips * batch.seconds * FRAMES / (8 if config.model_type == "qwen3_asr" else 2)
    heard = states * (3 * audio.hidden_size + 2 * audio.intermediate_size)
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens
    return compute * max(heard, batch.transcripts * length * (3 * text.hidden_size + 3 * text.intermediate_size))


def kv_cache(config: Any, batch: BatchShape, compute: int) -> float:
    """Return the bytes of all rows' keys and values at their caps, and of one layer's copy while it grows."""
    text = config.text_config
    length = audio_tokens(config, batch.seconds) + PROMPT[config.model_type] + batch.tokens
    a_layer = 2 * _widths(text)[1] * length * batch.transcripts * compute
    return (text.num_hidden_layers + 1) * a_layer


def _whole(counts: Counts, layout: ShardingLayout, compute: int, shards: int) -> tuple[float, float]:
    """Return the bytes of weights made whole for a rollout, and in a pass: two blocks and what is outside of them.

    One process alone shards nothing; where it computes in a narrower type than its masters' it keeps casts of all.
    """
    if shards == 1:
        casts = counts.total * compute if compute < layout.weight else 0.0
        return casts, casts
    some = counts.outside + 2 * max(counts.encoder_block, counts.decoder_block) if layout.reshard else counts.total
    return counts.total * compute, some * compute


def state(counts: Counts, trained: int, layout: ShardingLayout) -> dict[str, float]:
    """Return the bytes of the student's state on a GPU: one number a parameter, three more a trained one."""
    a_number = layout.weight / layout.shards
    return {"weights": counts.total * a_number, "gradients": trained * a_number, "adamw": 2 * trained * a_number}


def student_items(
    config: Any, counts: Counts, trained: int, batch: BatchShape, layout: ShardingLayout, frozen: Collection[str]
) -> dict[str, float]:
    """Return the bytes of the student's items, of any objective."""
    rollout, gradient = _whole(counts, layout, layout.compute, layout.shards)
    heard, read = activations(config, batch, layout, frozen)
    table = 0 if "decoder" in frozen else config.text_config.vocab_size * config.text_config.hidden_size
    return state(counts, trained, layout) | {
        "gathered for a rollout": rollout,
        "gathered in a pass": gradient,
        "encoder activations": heard,
        "decoder activations": read,
        "head table's gradient": table * (FLOAT + layout.compute),
        "optimizer at work": trained * layout.weight / layout.shards,
    }


def rollout_items(config: Any, batch: BatchShape, layout: ShardingLayout) -> dict[str, float]:
    """Return the bytes of a rollout; next logits are float32, masked in place."""
    logits = batch.transcripts * config.text_config.vocab_size * FLOAT
    return {
        "rollout's hearing": passing(config, batch, layout.compute),
        "kv cache": kv_cache(config, batch, layout.compute),
        "next logits": logits,
    }


def teacher_items(config: Any, counts: Counts, batch: BatchShape, layout: ShardingLayout) -> dict[str, float]:
    """Return the bytes of a teacher in this process; its clip is heard once a transcript."""
    vocab_size = getattr(config, "text_config", config).vocab_size
    sharded = _whole(counts, layout, layout.teacher, layout.teacher_shards)[1] if layout.teacher_shards > 1 else 0.0
    heard = BatchShape(batch.transcripts, batch.seconds, batch.transcripts, batch.tokens)
    return {
        "teacher's weights": counts.total * layout.teacher / layout.teacher_shards,
        "teacher at work": sharded + passing(config, heard, layout.teacher),
        "teacher's logits": batch.transcripts * batch.tokens * vocab_size * FLOAT,
    }


def phases(items: dict[str, float], accumulate: bool) -> dict[str, float]:
    """Return the peak of each phase from the items; accumulate: gradients are kept from one batch to the next.

    Clips are heard in the rollout, and what their gradient needs is kept from there on. In backward, gradients come as
    activations go, the decoder's first. Teacher's logits are there until the loss is known, and twice for a while
    where the mapper leaves positions out.
    """
    of = defaultdict(float, items)
    early = of["gradients"] if accumulate else 0.0
    rest = of["weights"] + of["adamw"] + of["teacher's weights"]
    held, table = of["encoder activations"] + of["decoder activations"], of["head table's gradient"]
    kept = of["encoder activations"] + early
    during = max(held + early, of["encoder activations"] + (early + of["gradients"]) / 2, of["gradients"])
    found = {
        "rollout": of["gathered for a rollout"]
        + max(of["rollout's hearing"], of["kv cache"] + of["next logits"])
        + kept,
        "teacher": max(of["teacher at work"], 2 * of["teacher's logits"]) + kept,
        "student": of["gathered in a pass"] + held + of["teacher's logits"] + 2 * of["logits"] + early,
        "backward": of["gathered in a pass"] + table + during + 2 * of["logits"],
        "optimizer": of["gradients"] + of["optimizer at work"],
    }
    if "kv cache" not in items:
        found = {name: found[name] for name in ("student", "backward", "optimizer")}
    return {name: rest + more for name, more in found.items()}
