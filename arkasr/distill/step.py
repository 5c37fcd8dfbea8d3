"""Algorithm 1 for one audio batch, in its seven lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arkasr.config.schema import DistillConfig, RolloutConfig
from arkasr.data.batches import Batch
from arkasr.distill.metrics import measure, places, rollout_sums, support_sums, teacher_sums
from arkasr.distill.rollout import Rollout, draw_sources, roll_out
from arkasr.distill.support import answered, shared_support, union_support
from arkasr.distributions.views import HeadView
from arkasr.errors import UserError
from arkasr.interfaces import DistributionView, Loss, Support, Teacher, TokenMapper
from arkasr.model.sharding import gathered
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.timing import Phases


@dataclass
class ScoredRollout:
    """One micro-batch of OPD: what the student is re-scored on, and the sums measured so far.

    batch holds a clip a transcript: the same clip several times where it was sampled several times.
    """

    batch: Batch
    rollout: Rollout
    student_rows: Tensor
    teacher_view: DistributionView
    support: Support
    sums: dict[str, Tensor | float]


@dataclass
class Opd:
    """On-policy distillation of a student by a teacher: holds what every step needs."""

    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    rollout: RolloutConfig
    distill: DistillConfig

    def __post_init__(self):
        if self._needs not in ("topk", "shared"):
            name = type(self.loss).__name__
            raise UserError(f"loss {name}: its attribute needs={self._needs!r} must be 'topk' or 'shared'")

    @property
    def _needs(self) -> str:
        return getattr(self.loss, "needs", "topk")

    def collect(self, student: SpeechLM, batch: Batch, phases: Phases) -> ScoredRollout:
        """Lines 1 to 4 and 6: rollout, alignment, teacher scores and the union support; only audio keeps a gradient."""
        k, num_clips = self.distill.top_k, len(batch.waveforms)
        given = self._given(batch, phases)
        heard = (batch.waveforms, batch.languages, batch.texts)
        with phases("rollout"), gathered(student):
            rollout = student(lambda lm: roll_out(lm, *heard, self.rollout, k, given))
            batch = batch.select(rollout.kept)
        alignment = self.mapper.align(rollout.made.ids)
        if not rollout.scored:
            alignment.student_rows, alignment.teacher_rows = alignment.student_rows[:0], alignment.teacher_rows[:0]
        student_rows = alignment.student_rows.to(student.device)
        with phases("teacher"), torch.no_grad():
            scored = self.teacher.score(batch.waveforms, batch.languages, alignment.teacher_ids)
            _check_count(f"teacher {type(self.teacher).__name__}", scored, sum(map(len, alignment.teacher_ids)))
            view = self.mapper.translate(scored, alignment)
            _check_count(f"mapper {type(self.mapper).__name__}", view, len(student_rows))
            best, logprobs = view.topk(k)
            candidates = rollout.made.topk[student_rows]
            visited = torch.tensor([i for ids in rollout.made.ids for i in ids], device=student.device)[student_rows]
            support = answered(union_support(best, candidates, visited, self.mapper), logprobs)
        sums = support_sums(support, min(k, best.shape[1], candidates.shape[1]))
        sums |= rollout_sums(rollout, alignment, num_clips) | teacher_sums(view, logprobs, support)
        return ScoredRollout(batch, rollout, student_rows, view, support, sums)

    def _given(self, batch: Batch, phases: Phases) -> dict[int, tuple[str, str]]:
        """Draw what each clip is scored on; returns by clip the source and text of those that are not rolled out.

        A clip whose text is empty, or in which the teacher hears nothing, is rolled out all the same.
        """
        sources = draw_sources(self.distill.mix, len(batch.waveforms))
        texts = {i: batch.texts[i] for i, source in enumerate(sources) if source == "reference"}
        if self.distill.mix.get("teacher", 0.0) > 0:  # a sharded teacher is gathered on all ranks, whoever asks it
            asked = [i for i, source in enumerate(sources) if source == "teacher"]
            with phases("teacher"), gathered(getattr(self.teacher, "lm", None)):
                texts |= zip(asked, self._transcripts(batch.select(asked)), strict=True)
        return {i: (sources[i], text) for i, text in texts.items() if text.strip()}

    def _transcripts(self, clips: Batch) -> list[str]:
        return self.teacher.transcribe(clips.waveforms, clips.languages) if clips.ids else []

    def rescore(self, student: SpeechLM, made: ScoredRollout, diagnose: bool = False) -> tuple[Tensor, Tensor]:
        """Lines 5 and 7: the same transcripts under gradient, and the loss on the support: its sum and count.

        Audio is not encoded again: the graph of the rollout's is carried on, so this can be done once. diagnose: also
        add to `made.sums` what needs the student's whole distributions.
        """
        kept, audio = made.rollout.kept, made.rollout.audio
        languages = dict(zip(kept, made.batch.languages, strict=True))  # of each clip, once

        def work(lm: SpeechLM) -> tuple[Tensor, Tensor]:
            prompts = dict(zip(languages, lm.embed_prompts([audio[i] for i in languages], [*languages.values()])))
            states = lm.transcript_states([prompts[i] for i in kept], made.rollout.made.ids)[made.student_rows]
            if diagnose:
                made.sums |= self._diagnosis(lm, HeadView(states.detach(), lm.head.detach(), lm.blocked), made)
            return self.loss(HeadView(states, lm.head, lm.blocked), made.teacher_view, self._compared(lm, made.support))

        return student(work)

    def _compared(self, lm: SpeechLM, support: Support) -> Support:
        if self._needs == "topk":
            return support
        return shared_support(len(lm.blocked), support.visited_student, self.mapper)

    def _diagnosis(self, lm: SpeechLM, view: HeadView, made: ScoredRollout) -> dict[str, float]:
        at = places(made.rollout.made.ids, made.batch.languages, made.student_rows, lm.stop_ids)
        stops = self.mapper.to_teacher(torch.tensor(lm.stop_ids, device=lm.device))
        return measure(view, made.teacher_view, made.support, at, stops[stops >= 0].unique())


def _check_count(who: str, view: DistributionView, expected: int) -> None:
    """Refuse a view of another number of positions than asked: rows would be compared with others than their own."""
    found = len(view) if hasattr(view, "__len__") else len(view.topk(1)[0])
    if found != expected:
        raise UserError(
            f"{who}: gave {found} positions where {expected} were asked for, one for each teacher token of the "
            "transcripts (score) or each pair of the alignment (translate); arkasr.testing checks a plugin for this"
        )
