"""A teacher that combines several local models with one vocabulary: the mean of their next-token probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """Options of `ensemble`.

    Attributes:
        paths: Folders or Hub ids of the members.
        weights: One positive weight for each path, scaled to sum 1. Empty for equal weights.
        dtype: dtype of the weights of the models, for example `bfloat16`.
        max_new_tokens: Maximum number of tokens per transcript when the teacher transcribes (stage 2).
    """

    paths: list[str]
    weights: list[float] = field(default_factory=list)
    dtype: str = "bfloat16"
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths is empty; give at least one folder or Hub id")
        if self.weights and len(self.weights) != len(self.paths):
            raise ValueError(f"weights has {len(self.weights)} numbers for {len(self.paths)} paths; give one per path")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"weights must be positive and finite, got {self.weights}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


class Ensemble:
    """Returns log sum_i w_i p_i(token) over the members i, with the weights w_i scaled to sum 1."""

    def __init__(self, options: Options, device: str = "cpu"):
        """Load and freeze the members.

        Args:
            options: Options of the teacher.
            device: torch device of the models.

        Raises:
            arkasr.UserError: If a member cannot be loaded, or if the members have different vocabularies or stop ids.
        """
        self.options = options
        self.members = [arkasr.load_speech_lm(path, options.dtype, device) for path in options.paths]
        for path, member in zip(options.paths, self.members):
            member.requires_grad_(False)
            self._check_vocabulary(path, member)
        weights = options.weights or [1.0] * len(self.members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.tokenizer, self.stop_ids = self.members[0].tokenizer, self.members[0].stop_ids

    def _check_vocabulary(self, path: str, member: arkasr.SpeechLM) -> None:
        first, opening = self.members[0], f"teacher `ensemble`: {path} and {self.options.paths[0]}"
        vocab, first_vocab = member.tokenizer.get_vocab(), first.tokenizer.get_vocab()
        if vocab != first_vocab:
            token = min(t for t in vocab.keys() | first_vocab.keys() if vocab.get(t) != first_vocab.get(t))
            ids = f"{token!r} has the ids {vocab.get(token)} and {first_vocab.get(token)}"
            raise arkasr.UserError(f"{opening} have different vocabularies ({ids}); remove one of them")
        sizes = [(len(lm.head), lm.stop_ids) for lm in (member, first)]
        if sizes[0] != sizes[1]:
            raise arkasr.UserError(
                f"{opening} have different numbers of outputs or stop ids ({sizes[0]} and {sizes[1]}); remove one of "
                "them"
            )

    def score(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], token_ids: Sequence[Sequence[int]]
    ) -> arkasr.DistributionView:
        """Score transcripts with every member. See `arkasr.Teacher.score`."""
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
        """Return the most probable of the members' greedy transcripts per clip. See `arkasr.Teacher.transcribe`."""
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
    """Register the teacher by name.

    Args:
        register: Function of (name, factory, dataclass of the options).
    """
    register("ensemble", Ensemble, Options)
