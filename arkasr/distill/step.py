"""Algorithm 1 for one audio batch, in its seven lines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from arkasr.data.batches import Batch
from arkasr.distill.diagnostics import rollout_sums, support_sums
from arkasr.distill.rollout import Rollout, roll_out
from arkasr.distill.support import union_support
from arkasr.interfaces import DistributionView, Loss, Support, Teacher, TokenMapper
from arkasr.model.sharding import gathered
from arkasr.model.speech_lm import SpeechLM
from arkasr.schema import DistillConfig, RolloutConfig
from arkasr.timing import Phases
from arkasr.views import HeadView


@dataclass
class Distillation:
    """One micro-batch of OPD: what the student is re-scored on, and the sums measured so far."""

    batch: Batch
    rollout: Rollout
    student_rows: Tensor
    teacher_view: DistributionView
    support: Support
    sums: dict[str, Tensor]


@dataclass
class Opd:
    """On-policy distillation of a student by a teacher: holds what every step needs."""

    teacher: Teacher
    mapper: TokenMapper
    loss: Loss
    rollout: RolloutConfig
    distill: DistillConfig

    def collect(self, student: SpeechLM, batch: Batch, phases: Phases) -> Distillation:
        """Lines 1 to 4 and 6: rollout, alignment, teacher scores and the union support, all without gradient."""
        k, num_clips = self.distill.top_k, len(batch.waveforms)
        with phases("rollout"), gathered(student):
            rollout = student(lambda lm: roll_out(lm, batch.waveforms, batch.languages, batch.texts, self.rollout, k))
            batch = batch.select(rollout.kept)
        alignment = self.mapper.align(rollout.made.ids)
        if not rollout.scored:
            alignment.student_rows, alignment.teacher_rows = alignment.student_rows[:0], alignment.teacher_rows[:0]
        student_rows = alignment.student_rows.to(student.device)
        with phases("teacher"), torch.no_grad():
            scored = self.teacher.score(batch.waveforms, batch.languages, alignment.teacher_ids)
            view = self.mapper.translate(scored, alignment)
            visited = torch.tensor([i for ids in rollout.made.ids for i in ids], device=student.device)
            support = union_support(
                view.topk(k)[0], rollout.made.topk[student_rows], visited[student_rows], self.mapper
            )
        sums = support_sums(support, k) | rollout_sums(rollout, alignment, num_clips)
        return Distillation(batch, rollout, student_rows, view, support, sums)

    def rescore(self, student: SpeechLM, made: Distillation) -> tuple[Tensor, Tensor]:
        """Lines 5 and 7: the same transcripts under gradient, and the loss on the support: its sum and count."""

        def work(lm: SpeechLM) -> tuple[Tensor, Tensor]:
            prompts = lm.embed_prompts(lm.encode_audio(made.batch.waveforms), made.batch.languages)
            states = lm.transcript_states(prompts, made.rollout.made.ids)[made.student_rows]
            return self.loss(HeadView(states, lm.head, lm.blocked), made.teacher_view, made.support)

        return student(work)
