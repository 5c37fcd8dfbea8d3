"""Greedy and sampled decoding of a batch of prompts.

Shapes: N prompts, B rows of the present batch, S_i prompt positions of clip i, H the decoder's hidden size, k top-k.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arkasr.model.generation.batch import DecodingBatch
from arkasr.model.generation.choosing import Choice
from arkasr.model.generation.engine import engine_of
from arkasr.model.generation.schedule import schedule_of
from arkasr.model.generation.step_runner import StepMode
from arkasr.model.generation.weights import current_weights
from arkasr.model.hotwords import HotwordTables
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.devices import to_device

EAGER_OR_CAPTURED = StepMode()


@dataclass
class Generation:
    """Transcripts of N clips.

    Attributes:
        ids: N lists of token ids. The last id is a stop id if the model stopped.
        stopped: N flags. False: the transcript was cut at its token cap.
        topk: Tensor [sum(len(ids)), k], int64, the k best allowed ids at each step, best first, in the order of `ids`.
    """

    ids: list[list[int]]
    stopped: list[bool]
    topk: Tensor


@torch.no_grad()
def generate(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    caps: Sequence[int],
    top_k: int = 0,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    top_p: float = 1.0,
    mode: StepMode = EAGER_OR_CAPTURED,
    hotwords: HotwordTables | None = None,
) -> Generation:
    """Continue N prompts until a stop id or the clip's token cap.

    Blocked ids (`SpeechLM.blocked`) are never chosen and never among the top k. Finished clips leave the batch. Keys
    and values lie in preallocated memory. On a GPU, memory and captured steps are kept for the next call.

    Args:
        lm: The model.
        prompts: N tensors [S_i, H] from `SpeechLM.embed_prompts`.
        caps: N maximum numbers of tokens, the stop token included (see `token_caps`). 0 or less writes nothing.
        top_k: Number of best ids to return for each step, limited to V. They come from the model's own distribution,
            without `temperature` and `top_p`, but with the bonus of hotwords.
        temperature: 0 decodes greedily. Otherwise logits are divided by it before sampling.
        generator: Source of the random draws. None uses torch's global generator.
        top_p: Nucleus sampling: draw from the smallest set of tokens with at least this probability. 1 uses all.
        mode: How decoding steps run. Default: eagerly on a CPU, captured in CUDA graphs on a GPU.
        hotwords: Hotwords whose bonus is added, on the device of the model (see `hotword_tables`). Tokens of an
            unfinished hotword remain (see `generate_preferring`).

    Returns:
        Transcripts and top-k ids of the N clips, in the order of `prompts`.

    Raises:
        UserError: The decoder has sliding windows, or an attention implementation other than sdpa and eager.
    """
    top_k = min(top_k, len(lm.blocked))
    if not prompts or max(caps) <= 0:
        nothing = torch.zeros(0, top_k, dtype=torch.long, device=lm.device)
        return Generation([[] for _ in prompts], [False for _ in prompts], nothing)
    choice = Choice(temperature, top_p, generator, hotwords)
    return cut(run_batch(lm, prompts, caps, choice, top_k, mode), caps, lm.stop_ids)


def run_batch(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    caps: Sequence[int],
    choice: Choice,
    top_k: int = 0,
    mode: StepMode = EAGER_OR_CAPTURED,
    resumed: Sequence[int | None] = (),
) -> DecodingBatch:
    """Decode one batch.

    Args:
        lm: The model.
        prompts: N tensors [S_i, H].
        caps: N token caps, of which at least one is positive.
        choice: How tokens are chosen.
        top_k: k.
        mode: How decoding steps run.
        resumed: See `DecodingBatch.read_prompts`.

    Returns:
        The batch, in which all rows are finished.

    Raises:
        UserError: See `generate`.
    """
    weights, schedule = current_weights(lm), schedule_of(lm.device, mode.compiled)
    copied = torch.autocast(lm.device.type, enabled=False) if weights.is_copy else nullcontext()
    with copied, torch.cuda.device_of(lm.blocked):  # streams, events and captures are those of the present GPU
        engine = engine_of(lm, weights, keep=lm.device.type == "cuda" and weights.is_fixed)
        choice = replace(choice, hotwords=engine.hotwords(choice.hotwords))
        batch = DecodingBatch(engine, schedule, choice, [len(p) for p in prompts], caps, top_k)
        batch.read_prompts(prompts, resumed)
        batch.run(mode)
    return batch


def cut(batch: DecodingBatch, caps: Sequence[int], stops: Sequence[int]) -> Generation:
    """Cut each transcript after its first stop id or at its token cap.

    Args:
        batch: A finished batch.
        caps: N token caps.
        stops: The stop ids.

    Returns:
        The transcripts.
    """
    rows = [row[: max(cap, 0)] for row, cap in zip(batch.ids.tolist(), caps, strict=True)]
    ends = [next((i + 1 for i, token in enumerate(row) if token in stops), None) for row in rows]
    ids = [row[:end] for row, end in zip(rows, ends)]
    width = batch.ids.shape[1]
    inside = [clip * width + step for clip, row in enumerate(ids) for step in range(len(row))]
    topk = batch.topk.flatten(0, 1)[to_device(inside, batch.topk.device, torch.long)]
    return Generation(ids, [end is not None for end in ends], topk)
