"""The transcripts to score, made without gradient: the student's own, the states it really visits, or given texts.

Whatever is drawn here comes from torch's global generators, which every rank seeds by itself and every checkpoint
holds: a resumed run samples what it would have sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from arkasr.config.schema import SOURCES, RolloutConfig
from arkasr.distributions.logits import best_tokens, head_logits
from arkasr.model.generation import Generation, generate, is_looping, token_caps
from arkasr.model.speech_lm.auto import SpeechLM

READ = 256  # positions of given texts whose logits [READ, V] exist at one time


@dataclass
class Rollout:
    """Transcripts to score: `kept` names the clip of each, `made` holds their ids and top-k candidates.

    Of num_rolled transcripts that the student made, num_empty have no word, num_looping end in a repeated pattern and
    num_stopped ended by themselves. sources: of each kept transcript, one of SOURCES. scored is False where every one
    was skipped: one is kept all the same, so that all ranks run the same passes, but none of its positions counts.
    audio: the audio tokens [N_i, H] of every clip, with their graph where a gradient is wanted: for the second pass.
    """

    kept: list[int]
    made: Generation
    num_empty: int
    num_stopped: int
    num_looping: int = 0
    num_rolled: int = 0
    sources: list[str] = field(default_factory=list)
    scored: bool = True
    audio: list[Tensor] = field(default_factory=list)


@dataclass
class _Transcript:
    """One transcript of a clip: ids [L], its candidates [L, k], and whether it ended by itself."""

    clip: int
    source: str
    ids: list[int]
    stopped: bool
    topk: Tensor


def draw_sources(mix: Mapping[str, float], num_clips: int) -> list[str]:
    """Draw for each clip which transcript is scored, by the weights of `mix`; draws nothing where only one may be."""
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
    given: Mapping[int, tuple[str, str]] | None = None,
) -> Rollout:
    """Transcribe B clips as `config` says and apply its policies for empty and looping transcripts.

    given: by clip the source and the text that is read instead of a rollout. `score` keeps an odd transcript, an empty
    one as the premature stop that it is; `skip` leaves it out of the step; `reference` reads the clip's text instead,
    once, as the paper allows (section 3.4), or is scored where there is none. One that is empty and loops (of spaces)
    goes by the policy for empty ones.
    Audio is encoded once, whatever the number of samples, and that with gradient where one is wanted: the weights are
    the same in the second pass, which so need not encode again. All else goes without gradient.
    """
    audio = lm.encode_audio(waveforms)
    with torch.no_grad():
        rollout = _roll_out(lm, audio, waveforms, languages, references, config, top_k, dict(given or {}))
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
    given: dict[int, tuple[str, str]],
) -> Rollout:
    prompts = lm.embed_prompts(audio, languages)
    clips = [i for i in range(len(prompts)) if i not in given for _ in range(config.samples)]
    rolled = _sample(lm, prompts, waveforms, clips, config, top_k)
    empty = [not lm.text(t.ids) for t in rolled]
    looping = [is_looping(t.ids, lm.stop_ids) for t in rolled]
    policies = [config.empty if e else config.looping if loop else "score" for e, loop in zip(empty, looping)]
    blank = [not text.strip() for text in references]
    policies = ["score" if p == "reference" and blank[t.clip] else p for t, p in zip(rolled, policies)]
    kept = [t for t, policy in zip(rolled, policies) if policy == "score"]
    given |= {t.clip: ("reference", references[t.clip]) for t, p in zip(rolled, policies) if p == "reference"}
    kept = sorted(kept + _read(lm, prompts, given, top_k), key=lambda t: t.clip)
    scored, kept = bool(kept), kept or rolled[:1]
    made = Generation([t.ids for t in kept], [t.stopped for t in kept], torch.cat([t.topk for t in kept]))
    counts = (sum(empty), sum(t.stopped for t in rolled), sum(looping), len(rolled))
    return Rollout([t.clip for t in kept], made, *counts, [t.source for t in kept], scored)


def _sample(
    lm: SpeechLM,
    prompts: Sequence[Tensor],
    waveforms: Sequence[Tensor],
    clips: Sequence[int],
    config: RolloutConfig,
    top_k: int,
) -> list[_Transcript]:
    """Roll out each clip named in `clips`, which may name one several times."""
    if not clips:
        return []
    caps = token_caps([waveforms[i] for i in clips], config.max_new_tokens, config.tokens_per_second)
    made = generate(lm, [prompts[i] for i in clips], caps, top_k, config.temperature, top_p=config.top_p)
    candidates = made.topk.split([len(ids) for ids in made.ids])
    return [_Transcript(i, "student", *of) for i, *of in zip(clips, made.ids, made.stopped, candidates)]


def _read(
    lm: SpeechLM, prompts: Sequence[Tensor], given: Mapping[int, tuple[str, str]], top_k: int
) -> list[_Transcript]:
    """Make transcripts of given texts; the student's candidates are its own scores' at the states it is led through."""
    if not given:
        return []
    ids = [_allowed(lm, lm.text_ids(text)) for _, text in given.values()]
    states = lm.transcript_states([prompts[i] for i in given], ids)
    parts = (head_logits(some, lm.head).masked_fill_(lm.blocked, -torch.inf) for some in states.split(READ))
    best = torch.cat([best_tokens(logits, top_k)[0] for logits in parts]).split([len(row) for row in ids])
    sources = [source for source, _ in given.values()]
    return [_Transcript(i, source, row, True, top) for i, source, row, top in zip(given, sources, ids, best)]


def _allowed(lm: SpeechLM, ids: list[int]) -> list[int]:
    """Leave out what no transcript may hold: a text may spell a special token."""
    blocked = lm.blocked[torch.tensor(ids, device=lm.device)].tolist()
    return [i for i, no in zip(ids[:-1], blocked) if not no and i not in lm.stop_ids] + ids[-1:]
