"""The transcripts to score: rollouts of the student (the states it visits), or provided texts.

All random draws use torch's global generators. Each rank seeds its own, and checkpoints store their states, so a
resumed run draws the same transcripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arkasr.config.schema import SOURCES, RolloutConfig
from arkasr.distributions.logits import best_tokens, head_logits
from arkasr.model.generation import Generation, StepMode, generate, is_looping, token_caps
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.tokenization import holds_reserved_tokens
from arkasr.utils.console import log

CHUNK = 256  # positions of provided texts whose logits [CHUNK, V] are in memory at the same time


@dataclass
class Rollout:
    """Transcripts to score, and counts of the transcripts that the student generated.

    Attributes:
        kept: Index in the batch of the clip that each transcript belongs to, in ascending order.
        generation: Token ids, stop flags and the student's top-k candidates of the transcripts.
        num_empty: Generated transcripts without a word.
        num_stopped: Generated transcripts that ended with a stop token.
        num_looping: Generated transcripts that end in a repeated pattern.
        num_rolled: All generated transcripts, including those that a policy removed.
        sources: Source of each transcript, one of `SOURCES`.
        scored: False if the policies removed every transcript. One transcript is then kept, so that all ranks run
            the same passes, but none of its positions is scored.
        audio: Audio tokens [N_i, H] of every clip of the batch, with their autograd graph if the student is trained.
    """

    kept: list[int]
    generation: Generation
    num_empty: int
    num_stopped: int
    num_looping: int = 0
    num_rolled: int = 0
    sources: list[str] = field(default_factory=list)
    scored: bool = True
    audio: list[Tensor] = field(default_factory=list)


@dataclass
class _Transcript:
    clip: int
    source: str
    ids: list[int]
    stopped: bool
    topk: Tensor  # the student's candidates, int64 [len(ids), k]


def draw_sources(mix: Mapping[str, float], num_clips: int) -> list[str]:
    """Draw the source of the transcript to score for each clip.

    No random number is drawn if only one source has a positive weight.

    Args:
        mix: Weight of each source, 0 for sources that are absent.
        num_clips: How many sources to draw.

    Returns:
        One of `SOURCES` per clip.
    """
    weights = torch.tensor([mix.get(name, 0.0) for name in SOURCES], dtype=torch.float64)
    if int((weights > 0).sum()) == 1:
        return [SOURCES[int(weights.argmax())]] * num_clips
    return [SOURCES[i] for i in torch.multinomial(weights, num_clips, replacement=True).tolist()]


def roll_out(
    lm: SpeechLM,
    waveforms: Sequence[Tensor],
    languages: Sequence[str],
    references: Sequence[str],
    config: RolloutConfig,
    top_k: int,
    provided: Mapping[int, tuple[str, str]] | None = None,
) -> Rollout:
    """Transcribe B clips with the student and apply the policies for empty and looping transcripts.

    The policies `config.empty` and `config.looping` (a transcript that is both follows `config.empty`):

    - `score` keeps the transcript. An empty one is scored as a stop token that came too early.
    - `skip` removes the transcript from this step.
    - `reference` replaces it by the reference text of the clip (paper, section 3.4), once per clip. Without a
      reference text, or with one that spells out a special token, the transcript is kept.

    Only the audio encoder runs with gradient. It runs once per clip: the second pass of the student uses the same
    weights and continues from the same audio tokens.

    Args:
        lm: The student.
        waveforms: B tensors [num_samples], float32, at 16 kHz.
        languages: B language names.
        references: B reference texts.
        config: Sampling options and policies.
        top_k: Candidates to return per position.
        provided: Texts to score instead of a rollout, as clip index -> (source, text). If a text spells out a special
            token, this is logged and the clip is rolled out.

    Returns:
        The transcripts to score, clip by clip, and counts over all generated ones.
    """
    audio = lm.encode_audio(waveforms)
    with torch.no_grad():
        rollout = _roll_out(lm, audio, waveforms, languages, references, config, top_k, dict(provided or {}))
    rollout.audio = audio
    return rollout


def _roll_out(
    lm: SpeechLM,
    audio: Sequence[Tensor],
    waveforms: Sequence[Tensor],
    languages: Sequence[str],
    references: Sequence[str],
    config: RolloutConfig,
    top_k: int,
    provided: dict[int, tuple[str, str]],
) -> Rollout:
    prompts = lm.embed_prompts(audio, languages)
    forced = _usable_texts(lm, provided)
    clips = [i for i in range(len(prompts)) if i not in forced for _ in range(config.samples)]
    generated = _generate(lm, prompts, waveforms, clips, config, top_k)
    empty = [not lm.text(t.ids) for t in generated]
    looping = [is_looping(t.ids, lm.stop_ids) for t in generated]
    policies = [config.empty if e else config.looping if loop else "score" for e, loop in zip(empty, looping)]
    replaced = [t.clip for t, p in zip(generated, policies) if p == "reference" and references[t.clip].strip()]
    replacements = _usable_texts(lm, {clip: ("reference", references[clip]) for clip in replaced})
    policies = ["score" if p == "reference" and t.clip not in replacements else p for t, p in zip(generated, policies)]
    kept = [t for t, policy in zip(generated, policies) if policy == "score"]
    kept = sorted(kept + _force(lm, prompts, forced | replacements, top_k), key=lambda t: t.clip)
    scored, kept = bool(kept), kept or generated[:1]
    generation = Generation([t.ids for t in kept], [t.stopped for t in kept], torch.cat([t.topk for t in kept]))
    counts = (sum(empty), sum(t.stopped for t in generated), sum(looping), len(generated))
    return Rollout([t.clip for t in kept], generation, *counts, [t.source for t in kept], scored)


def _generate(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    waveforms: Sequence[Tensor],
    clips: Sequence[int],
    config: RolloutConfig,
    top_k: int,
) -> list[_Transcript]:
    """Generate one transcript for each entry of `clips`, which may contain an index several times."""
    if not clips:
        return []
    caps = token_caps([waveforms[i] for i in clips], config.max_new_tokens, config.tokens_per_second)
    chosen, mode = [prompts[i] for i in clips], StepMode(config.compile)
    result = generate(lm, chosen, caps, top_k, config.temperature, top_p=config.top_p, mode=mode)
    candidates = torch.split(result.topk, [len(ids) for ids in result.ids])
    transcripts = zip(clips, result.ids, result.stopped, candidates)
    return [_Transcript(clip, "student", ids, stopped, topk) for clip, ids, stopped, topk in transcripts]


def _usable_texts(lm: SpeechLM, texts: Mapping[int, tuple[str, str]]) -> dict[int, tuple[str, list[int]]]:
    """Return clip index -> (source, ids) of the texts that can be scored, and log the others.

    A text that spells out a special token is not a transcript. Supervised training drops such clips too.
    """
    ids = {clip: lm.text_ids(text) for clip, (_, text) in texts.items()}
    reserved = {clip for clip, row in ids.items() if holds_reserved_tokens(row, lm.blocked_ids, lm.stop_ids)}
    for clip in sorted(reserved):
        source, text = texts[clip]
        log(f"{source} text {text!r} contains reserved tokens; the student's transcript is scored instead", True)
    return {clip: (texts[clip][0], ids[clip]) for clip in texts if clip not in reserved}


def _force(
    lm: SpeechLM, prompts: Sequence[Tensor], provided: Mapping[int, tuple[str, list[int]]], top_k: int
) -> list[_Transcript]:
    """Score provided texts by teacher forcing, which yields the student's top-k candidates at each position."""
    if not provided:
        return []
    ids = [row for _, row in provided.values()]
    states = lm.transcript_states([prompts[i] for i in provided], ids)
    chunks = (head_logits(part, lm.head).masked_fill_(lm.blocked, -torch.inf) for part in torch.split(states, CHUNK))
    best = torch.cat([best_tokens(logits, top_k)[0] for logits in chunks])
    candidates = torch.split(best, [len(row) for row in ids])
    sources = [source for source, _ in provided.values()]
    transcripts = zip(provided, sources, ids, candidates)
    return [_Transcript(clip, source, row, True, topk) for clip, source, row, topk in transcripts]
