"""The student's own transcripts, without gradient: the states it really visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from arkasr.model.generation import Generation, generate, token_caps
from arkasr.model.speech_lm import SpeechLM
from arkasr.schema import RolloutConfig


@dataclass
class Rollout:
    """Transcripts to score: `kept` indexes the batch's clips; `made` holds their ids and top-k candidates.

    num_empty: rollouts without a word; num_stopped: rollouts that ended by themselves. scored is False where every
    clip was skipped: one is kept all the same, so that all ranks run the same passes, but none of its positions counts.
    """

    kept: list[int]
    made: Generation
    num_empty: int
    num_stopped: int
    scored: bool = True


@torch.no_grad()
def roll_out(
    lm: SpeechLM,
    waveforms: Sequence[Tensor],
    languages: Sequence[str],
    references: Sequence[str],
    config: RolloutConfig,
    top_k: int,
) -> Rollout:
    """Transcribe B clips as `config` says and apply its policy for empty transcripts.

    `score` keeps an empty rollout, whose only position is the premature stop; `skip` leaves the clip out of the step;
    `reference` reads the reference text instead, as the paper allows (section 3.4).
    """
    prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
    caps = token_caps(waveforms, config.max_new_tokens, config.tokens_per_second)
    made = generate(lm, prompts, caps, top_k, config.temperature)
    empty = [i for i, ids in enumerate(made.ids) if not lm.text(ids)]
    rollout = Rollout(list(range(len(caps))), made, len(empty), sum(made.stopped))
    if empty and config.empty == "skip":
        _keep(rollout, [i for i in rollout.kept if i not in empty])
    if empty and config.empty == "reference":
        _read_references(rollout, lm, prompts, {i: lm.text_ids(references[i]) for i in empty}, top_k)
    return rollout


def _rows(made: Generation) -> list[Tensor]:
    return list(made.topk.split([len(ids) for ids in made.ids]))


def _keep(rollout: Rollout, clips: list[int]) -> None:
    made, rows = rollout.made, _rows(rollout.made)
    rollout.scored = bool(clips)
    rollout.kept = clips or [0]
    rollout.made = Generation(
        [made.ids[i] for i in rollout.kept],
        [made.stopped[i] for i in rollout.kept],
        torch.cat([rows[i] for i in rollout.kept]),
    )


def _read_references(
    rollout: Rollout, lm: SpeechLM, prompts: Sequence[Tensor], texts: dict[int, list[int]], top_k: int
) -> None:
    states = lm.transcript_states([prompts[i] for i in texts], list(texts.values()))
    logits = (states @ lm.head.T).float().masked_fill(lm.blocked, -torch.inf)
    best = logits.topk(min(top_k, len(lm.blocked))).indices.split([len(ids) for ids in texts.values()])
    rows = _rows(rollout.made)
    for (clip, ids), candidates in zip(texts.items(), best):
        rollout.made.ids[clip], rows[clip] = ids, candidates
    rollout.made.topk = torch.cat(rows)
