"""Sections `rollout`, `compile` and `inference` of `gpu.py`: decoding alone, by several paths."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterator
from functools import partial

import fresh
import rtf
import torch
from gpu_bench import Bench
from gpu_check import AGAINST_FLOAT32, same_transcripts, worst_gap
from gpu_table import Row
from measured import seconds
from torch import Tensor

from arkasr import SpeechLM, generate
from arkasr.config.schema import DecodeConfig
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.generation import Generation
from arkasr.model.generation.step_runner import StepMode, StepRunner

EAGER, GRAPH, COMPILED = "eager step", "CUDA graph", "compiled, CUDA graph"


def _path(mode: StepMode) -> Callable[..., Generation]:
    return partial(generate, mode=mode)


# Paths by name. Each one takes the arguments of `generate`. The eager step is the baseline of ratios and transcripts.
PATHS = {EAGER: _path(StepMode(graphs=False)), GRAPH: _path(StepMode()), COMPILED: _path(StepMode("on"))}


def decoder_bytes(lm: SpeechLM) -> int:
    """Return the bytes of weights that are read for each token: decoder and output head.

    Args:
        lm: The model.
    """
    table = lm.hf.get_input_embeddings().weight  # of which a token reads one row, unless it is the head too
    weights = [p for p in lm.hf.model.language_model.parameters() if p is not table]
    return sum(p.nbytes for p in weights) + lm.head.nbytes


@torch.no_grad()
def prompts_of(lm: SpeechLM, clips: list[Tensor]) -> list[Tensor]:
    """Return the embedded prompts of clips.

    Args:
        lm: The model.
        clips: B waveforms.
    """
    return lm.embed_prompts(lm.encode_audio(clips), ["English"] * len(clips))


def rollout(bench: Bench) -> Iterator[Row]:
    """Decode the batch, and its first clip alone, eagerly and by a CUDA graph. The ratio is eager / this path.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    prompts = prompts_of(bench.student, bench.inputs.batch.waveforms)
    first = bench.median(lambda: PATHS[EAGER](bench.student, prompts, [1] * len(prompts), bench.numbers.top_k))
    yield Row("rollout", f"prefill and first token, batch {len(prompts)}", 1000 * first, "ms")
    whole = yield from _compare(bench, "rollout", prompts, (EAGER, GRAPH), None)
    alone = Generation(whole.ids[:1], whole.stopped[:1], whole.topk[: len(whole.ids[0])])
    yield from _compare(bench, "rollout", prompts[:1], (EAGER, GRAPH), alone)


def compiled(bench: Bench) -> Iterator[Row]:
    """Decode the batch with `rollout.compile: on`. The ratio is CUDA graph / this path.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    prompts = prompts_of(bench.student, bench.inputs.batch.waveforms)
    yield from _compare(bench, "compile", prompts, (GRAPH, COMPILED), None)


def _compare(
    bench: Bench, section: str, prompts: list[Tensor], names: tuple[str, ...], base: Generation | None
) -> Generator[Row, None, Generation]:
    """Yield the rows of some paths. Return the transcripts of the baseline: `base`, or those of the first path."""
    lm, numbers, times = bench.student, bench.numbers, {}
    caps = [numbers.cap] * len(prompts)
    for name in names:
        shown = EAGER if name == GRAPH and bench.device != "cuda" else name
        title, work = f"{shown}, batch {len(prompts)}", partial(PATHS[name], lm, prompts, caps, numbers.top_k)
        if name != EAGER:
            yield Row(section, f"{title}: first call", seconds(work, bench.device), "s")
        row = Row(section, title, unit="ms per token")
        times[name] = bench.measure(work, row, graphs=name != EAGER)
        found = work()
        base = base or found
        row.value, row.ratio = 1000 * times[name] / numbers.cap, times[names[0]] / times[name]
        if bench.card.bandwidth:
            row.limit = decoder_bytes(lm) * numbers.cap / bench.card.bandwidth / times[name]
        row.result = same_transcripts(base, found, worst_gap(lm, prompts, caps, found), numbers.dtype)
        if name != EAGER and StepRunner.failed:
            row.result = f"FAILED: fell back from {' and '.join(sorted(StepRunner.failed))}; {row.result}"
        yield row
    assert base is not None
    return base


@torch.no_grad()
def inference(bench: Bench) -> Iterator[Row]:
    """Transcribe as `arkasr decode` does. The value is seconds of audio per second (RTFx), the ratio that to batch 1.

    Every transcript ends at its cap. The last row compares the transcripts of one batch with those of a float32 copy.

    Args:
        bench: The inputs.

    Yields:
        The rows.
    """
    lm, numbers, rates = copy.deepcopy(bench.student), bench.numbers, []
    lm.blocked[lm.stop_ids] = True
    settings = DecodeConfig(max_new_tokens=numbers.tokens, tokens_per_second=0.0)
    for count in numbers.batches:
        clips, row = rtf.noise(count, numbers.seconds, bench.device), Row("inference", f"batch {count}", unit="RTFx")
        rtf.check(lm, clips, settings)
        rates.append(count * numbers.seconds / bench.measure(partial(transcribe, lm, clips, settings), row))
        row.value, row.ratio = rates[-1], rates[-1] / rates[0]
        yield row
    yield _against_float32(lm, fresh.clips(min(16, max(numbers.batches)), numbers.seconds), numbers.tokens)


def _against_float32(lm: SpeechLM, clips: list[Tensor], tokens: int) -> Row:
    caps, exact = [tokens] * len(clips), copy.deepcopy(lm).float()
    found = generate(lm, prompts_of(lm, clips), caps)
    prompts = prompts_of(exact, clips)
    base = generate(exact, prompts, caps)
    agreed = sum(a == b for x, y in zip(base.ids, found.ids, strict=True) for a, b in zip(x, y, strict=True))
    name = f"{str(lm.head.dtype).removeprefix('torch.')} against float32, batch {len(clips)}"
    result = same_transcripts(base, found, worst_gap(exact, prompts, caps, found), "float32", AGAINST_FLOAT32)
    return Row("inference", name, 100 * agreed / sum(caps), "% of tokens", result=result)
