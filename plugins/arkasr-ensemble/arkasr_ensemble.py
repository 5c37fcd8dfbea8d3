"""A teacher made of several local ones with one vocabulary: the mean of their next-token probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """paths: folders or Hub ids; weights: one for each path, empty for equal ones; dtype: of the weights in memory;
    max_new_tokens: cap of a transcript when it transcribes.
    """

    paths: list[str]
    weights: list[float] = field(default_factory=list)
    dtype: str = "bfloat16"
    max_new_tokens: int = 256

    def __post_init__(self):
        if not self.paths:
            raise ValueError("paths is empty; name one recogniser at least")
        if self.weights and len(self.weights) != len(self.paths):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(self.paths)} paths; give one for each")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights={self.weights}: each must be above 0")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")


class Ensemble:
    """Answers with log sum_i w_i p_i(token), the weights scaled to sum 1."""

    def __init__(self, options: Options, device: str = "cpu"):
        self.options = options
        self.members = [arkasr.load_speech_lm(path, options.dtype, device) for path in options.paths]
        for path, member in zip(options.paths, self.members):
            member.requires_grad_(False)
            self._check_vocabulary(path, member)
        weights = options.weights or [1.0] * len(self.members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.tokenizer, self.stop_ids = self.members[0].tokenizer, self.members[0].stop_ids

    def _check_vocabulary(self, path: str, member: arkasr.SpeechLM) -> None:
        first, opening = self.members[0], f"teacher 'ensemble': {path} and {self.options.paths[0]}"
        ours, theirs = member.tokenizer.get_vocab(), first.tokenizer.get_vocab()
        if ours != theirs:
            token = min(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
            said = f"{token!r} is id {ours.get(token)} in the one, {theirs.get(token)} in the other"
            raise arkasr.UserError(f"{opening} have different vocabularies ({said}); leave one out")
        sizes = [(len(lm.head), lm.stop_ids) for lm in (member, first)]
        if sizes[0] != sizes[1]:
            raise arkasr.UserError(f"{opening} differ in (outputs, stop ids): {sizes[0]} and {sizes[1]}; leave one out")

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> arkasr.DistributionView:
        """Score transcripts under every member; see `arkasr.Teacher`."""
        import torch

        mixture = None
        with torch.no_grad():
            for weight, lm in zip(self.weights, self.members):
                prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
                logits = arkasr.head_logits(lm.transcript_states(prompts, token_ids), lm.head)
                part = logits.log_softmax(-1) + torch.tensor(weight).log()
                mixture = part if mixture is None else torch.logaddexp(mixture, part)
        return arkasr.DenseView(mixture)

    def transcribe(self, waveforms: Sequence[Tensor], languages: Sequence[str]) -> list[str]:
        """Let every member transcribe greedily, and keep of each clip's transcripts the ensemble's most probable."""
        import torch

        drafts, scores = [], []
        for lm in self.members:
            with torch.no_grad():
                prompts = lm.embed_prompts(lm.encode_audio(waveforms), languages)
                ids = arkasr.generate(lm, prompts, [self.options.max_new_tokens] * len(waveforms)).ids
            targets = torch.tensor([[i] for clip in ids for i in clip], device=lm.device)
            logprobs = self.score(waveforms, languages, ids).logprobs_at(targets)[:, 0]
            drafts.append([lm.text(clip) for clip in ids])
            scores.append([float(part.sum()) for part in logprobs.split([len(clip) for clip in ids])])
        best = [max(range(len(drafts)), key=lambda member: scores[member][clip]) for clip in range(len(waveforms))]
        return [drafts[member][clip] for clip, member in enumerate(best)]


@arkasr.hookimpl
def register_teachers(register):
    """Register the ensemble by name."""
    register("ensemble", Ensemble, Options)
