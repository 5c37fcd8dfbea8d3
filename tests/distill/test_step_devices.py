"""One OPD step on a GPU without values: no operation of teacher, mapper and loss mixes devices or reads a value."""

from __future__ import annotations

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu, on_gpu
from steps import CASES, SIZES, opd
from tiny import batch, teacher

from arkasr.builtin import losses
from arkasr.builtin.teachers.local import LocalTeacher
from arkasr.distill import rollout, step
from arkasr.distill.side_stream import SideStream
from arkasr.distributions import views
from arkasr.model import log_mel
from arkasr.model.generation import Generation
from arkasr.utils.timing import Phases

LOSSES = {
    "union_topk_kl": losses.UnionTopkKl(losses.UnionTopkKlOptions(2.0)),
    "teacher_topk_kl": losses.TeacherTopkKl(losses.TopkOptions()),
    "student_topk_reverse_kl": losses.StudentTopkReverseKl(losses.TopkOptions()),
    "sampled_reverse_kl": losses.SampledReverseKl(losses.NoLossOptions()),
    "ark_compat": losses.ArkCompat(losses.ArkCompatOptions()),
}


class InMemory(LocalTeacher):
    """The built-in teacher of a model in memory."""

    def __init__(self, lm):
        self.lm, self.tokenizer, self.stop_ids = lm, lm.tokenizer, lm.stop_ids


def transcripts(lm, prompts, caps, top_k, *_, **__):
    """Return what `generate` does, whose ids the host reads."""
    ids = [[5, 6, 7, lm.stop_ids[0]] for _ in prompts]
    return Generation(ids, [True] * len(ids), torch.zeros(4 * len(ids), top_k, dtype=torch.long, device=DEVICE))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mapper", CASES)
def test_an_opd_step_stays_on_the_gpu(mapper, loss, monkeypatch):
    make, mapper_class = CASES[mapper]
    lm, its_teacher = make(), InMemory(teacher(10))
    one = opd(lm, its_teacher, mapper_class)
    one.loss = LOSSES[loss]
    monkeypatch.setattr(log_mel, "_check", lambda *_: None)  # reads waveforms, which are on the host
    monkeypatch.setattr(log_mel, "mel_filters", lambda num_mel, device: torch.empty(201, num_mel, device=device))
    monkeypatch.setattr(views, "_span", lambda *_: None)  # reads rows on the host
    monkeypatch.setattr(step, "draw_sources", lambda _, clips: ["student"] * clips)  # draws on the host
    monkeypatch.setattr(step, "side_stream", lambda *_: SideStream())
    monkeypatch.setattr(rollout, "generate", transcripts)
    with fake_gpu():
        on_gpu(lm), on_gpu(its_teacher.lm)
        scored = one.collect(lm, batch(SIZES), Phases())
        total, count = one.rescore(lm, scored)
    tensors = [value for value in scored.sums.values() if torch.is_tensor(value)]
    assert len(tensors) > 5 and {value.device for value in (*tensors, total, count)} == {DEVICE}
    assert total.dtype == torch.float32 and scored.support.valid.shape[0] == len(scored.student_rows) > 5
