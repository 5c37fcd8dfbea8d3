"""What a run minimises: cross-entropy on transcripts (with an auxiliary CTC loss), or on-policy distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy, ctc_loss
from torch.nn.utils.rnn import pad_sequence

from arkasr.config.schema import Config
from arkasr.data.batches import Batch
from arkasr.distill.metrics import MAXIMA, rates
from arkasr.distill.step import Opd
from arkasr.distributions.chunked_head import sum_in_parts
from arkasr.errors import UserError
from arkasr.interfaces import Teacher
from arkasr.model.sharding import shard
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.plugins import registry
from arkasr.utils.console import log
from arkasr.utils.timing import Phases


@dataclass
class MicroLoss:
    """The loss of one micro-batch as a sum with gradient and the count that divides it, and sums to log."""

    total: Tensor
    count: float
    sums: dict[str, float] = field(default_factory=dict)

    def unweighted(self) -> MicroLoss:
        """Return the same pass without any weight: what a rank without usable clips adds, so that no rank waits."""
        nothing = {name: -math.inf if name in MAXIMA else 0.0 for name in self.sums}
        return MicroLoss(0.0 * self.total, 0.0, nothing)


class Objective(Protocol):
    """A loss over a batch, and how its sums read in a log."""

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        """Compute the loss of one micro-batch of step `step`, counted from 1."""

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """Turn sums over the global batch into what is logged beside the loss."""


class SupervisedObjective:
    """Cross-entropy on transcripts; `(1 - w) * CE + w * CTC` where the model has a CTC head, both a token."""

    def __init__(self, ctc_weight: float):
        self.ctc_weight = ctc_weight

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        targets = [student.text_ids(text) for text in batch.texts]
        stops = set(student.stop_ids)
        usable = [i for i, t in enumerate(targets) if not (student.blocked[t].any() or stops & set(t[:-1]))]
        for i in set(range(len(targets))) - set(usable):
            log(f"dropped {batch.ids[i]}: its text holds tokens that no transcript may hold: {batch.texts[i]!r}")
        batch = batch.select(usable or [0])
        targets = [targets[i] for i in usable] or [[student.stop_ids[0]]]
        with phases("student"):
            ce, ctc = student(lambda lm: self._losses(lm, batch, targets))
        sums = {"ce": float(ce.detach()), "ctc": float(ctc.detach())}
        micro = MicroLoss((1 - self.ctc_weight) * ce + self.ctc_weight * ctc, sum(map(len, targets)), sums)
        return micro if usable else micro.unweighted()

    def _losses(self, lm: SpeechLM, batch: Batch, targets: list[list[int]]) -> tuple[Tensor, Tensor]:
        audio = lm.encode_audio(batch.waveforms)
        states = lm.transcript_states(lm.embed_prompts(audio, batch.languages), targets)
        flat = torch.tensor([i for ids in targets for i in ids], device=lm.device)
        ce, _ = sum_in_parts(_cross_entropy, states, lm.head, flat)  # float32 whatever the weights are
        if lm.ctc_head is None:
            return ce, ce.new_zeros(())
        logprobs = pad_sequence([lm.ctc_head(a).float().log_softmax(-1) for a in audio])
        texts = torch.tensor([i for ids in targets for i in ids[:-1]], device=lm.device)
        sizes = torch.tensor([len(a) for a in audio]), torch.tensor([len(ids) - 1 for ids in targets])
        blank = logprobs.shape[-1] - 1
        return ce, ctc_loss(logprobs, texts, *sizes, blank=blank, reduction="sum", zero_infinity=True)

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """Return cross-entropy and CTC loss a token."""
        return {name: sums[name] / max(sums["count"], 1.0) for name in ("ce", "ctc")}


def _cross_entropy(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return cross_entropy(scores, targets, reduction="sum"), torch.ones_like(targets).sum()


class DistillationObjective:
    """OPD: Algorithm 1 on the student's own transcripts; every so many steps more is measured."""

    def __init__(self, opd: Opd):
        self.opd = opd

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        made, every = self.opd.collect(student, batch, phases), self.opd.distill.diagnose_every
        with phases("student"):
            total, count = self.opd.rescore(student, made, diagnose=every > 0 and step % every == 0)
        return MicroLoss(total, float(count), {name: float(value) for name, value in made.sums.items()})

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """Return VUSS, overlap, coverage, the rollouts' rates, and the diagnostics of this step if it has any."""
        return rates(sums)


def make_objective(config: Config, student: SpeechLM, mesh: DeviceMesh | None = None) -> Objective:
    """Make what `config.objective` names; for OPD the teacher, mapper and loss come from plugins.

    mesh: of the ranks, over which a teacher is sharded where the config says so.
    """
    if config.objective == "sft":
        return SupervisedObjective(config.train.ctc_weight)
    if config.train.ctc_weight:
        raise UserError("train.ctc_weight: CTC needs transcripts; set it to 0 with objective: opd")
    device = str(student.device)
    teacher = registry.create("teacher", config.teacher.name, config.teacher.options, device=device)
    if config.fsdp.teacher == "shard":
        shard_teacher(config.teacher.name, teacher, mesh)
    mapper = registry.create(
        "token_mapper", config.mapper.name, config.mapper.options, student=student, teacher=teacher
    )
    loss = registry.create("loss", config.loss.name, config.loss.options)
    return DistillationObjective(Opd(teacher, mapper, loss, config.rollout, config.distill))


def shard_teacher(name: str, teacher: Teacher, mesh: DeviceMesh | None) -> None:
    """Shard the model that a teacher holds as `lm` over `mesh`, in its own dtype; a process alone (None) keeps it whole.

    Raises UserError for a teacher that holds no SpeechLM, such as one behind a server.
    """
    lm = getattr(teacher, "lm", None)
    if not isinstance(lm, SpeechLM):
        raise UserError(
            f"fsdp.teacher: teacher {name!r} cannot be sharded (it has no SpeechLM `lm`); set it to replicate"
        )
    if mesh is not None:
        shard(lm, mesh)
