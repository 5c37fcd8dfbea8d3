"""How often one micro-step of distillation makes the host wait for the device."""

from __future__ import annotations

import pytest
import torch
from steps import CASES, SIZES, opd, trainable
from tiny import batch, teacher

from arkasr.builtin.losses import FullKl, NoLossOptions
from arkasr.builtin.mappers.byte_offsets import ByteOffsets, ByteOffsetsOptions
from arkasr.builtin.teachers.local import LocalTeacher, LocalTeacherOptions
from arkasr.distill.metrics import read_sums
from arkasr.testing.host_reads import count_host_reads
from arkasr.training.objectives import DistillationObjective
from arkasr.utils.timing import Phases

LATE = "generation/late_flags.py"  # which rows are done, read while the device decodes on


@pytest.fixture(scope="module")
def local_teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    teacher(10).save(folder)
    return LocalTeacher(LocalTeacherOptions(path=str(folder), dtype="float32"))


@pytest.mark.parametrize("loss", ["union_topk_kl", "full_kl"])
@pytest.mark.parametrize("mapper", CASES)
def test_micro_step_reads_at_most_ten_times(local_teacher, mapper, loss):
    make, mapper_class = CASES[mapper]
    lm = make().train()
    one = opd(lm, local_teacher, mapper_class)
    if loss == "full_kl":
        one.loss = FullKl(NoLossOptions())
    objective = DistillationObjective(one)
    objective(lm, batch(SIZES), Phases())  # tables of ids are copied to the device once
    with count_host_reads() as reads:
        micro = objective(lm, batch(SIZES), Phases())
        micro.total.backward()
        sums = read_sums(micro.sums | {"loss": micro.total.detach(), "count": micro.count})
    assert not reads.mixed
    assert sums["count"] > 10 and sums["loss"] > 0
    others = {place: count for place, count in reads.by_place.items() if LATE not in place}
    assert sum(others.values()) <= 10, others
    outside = {place: count for place, count in others.items() if "model/generation/" not in place}
    assert list(outside) == [next(place for place in outside if "distill/metrics.py" in place)], outside
    assert sum(outside.values()) == 1  # loss, count and all metrics together


@pytest.mark.parametrize("loss", ["union_topk_kl", "full_kl"])
def test_byte_offsets_reads_nothing_from_the_device(local_teacher, loss):
    """Its tables are on the host. They count as device tensors here, since they exist before the count."""
    lm = trainable().train()
    one = opd(lm, local_teacher, lambda _, **models: ByteOffsets(ByteOffsetsOptions(), **models))
    if loss == "full_kl":
        one.loss = FullKl(NoLossOptions())
    objective = DistillationObjective(one)
    objective(lm, batch(SIZES), Phases())
    with count_host_reads() as reads:
        objective(lm, batch(SIZES), Phases()).total.backward()
    on_host = ("byte_offsets.py", "(nonzero)")  # what it reads from its tables
    places = [place for place in reads.by_place if "builtin/" in place]
    assert not [place for place in places if not any(name in place for name in on_host)], reads.by_place


def test_losses_and_metrics_stay_on_the_device(local_teacher):
    lm = trainable()
    one = opd(lm, local_teacher)
    scored = one.collect(lm, batch(SIZES), Phases())
    with count_host_reads() as reads:
        total, count = one.rescore(lm, scored)
    assert reads.total == 0, reads.by_place
    assert isinstance(count, torch.Tensor) and total.requires_grad
    assert all(isinstance(scored.sums[name], torch.Tensor) for name in ("vuss", "overlap", "positions", "dropped_mass"))
