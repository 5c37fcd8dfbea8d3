"""Training objectives: cross-entropy on transcripts (with an auxiliary CTC loss), and on-policy distillation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
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
from arkasr.model.spec_augment import SpecAugment
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.model.tokenization import holds_reserved_tokens
from arkasr.plugins import registry
from arkasr.utils.console import log
from arkasr.utils.devices import to_device
from arkasr.utils.timing import Phases

# Mean teacher probability on tokens that the student lacks, above which OPD is likely to make the student worse. In the
# LibriSpeech miniature, 0.26 raised the dev error rate from 17 to 82 %.
MOST_LOST = 0.1


@dataclass
class MicroLoss:
    """The loss of one micro-batch, not yet divided by its count.

    Tensors stay on the device until the trainer reads all of them at once, so that the host need not wait for the loss
    before it starts the backward pass.
    """

    total: Tensor  # scalar with gradient: sum of the loss over tokens or positions
    count: Tensor | float  # number of tokens (supervised) or counted positions (distillation)
    sums: dict[str, Tensor | float] = field(default_factory=dict)  # to log, added up over micro-batches and ranks

    def unweighted(self) -> MicroLoss:
        """Return a loss with the same graph and weight zero.

        A rank without usable clips back-propagates it, so that collectives of the other ranks do not block.
        """
        neutral: dict[str, Tensor | float] = {name: -math.inf if name in MAXIMA else 0.0 for name in self.sums}
        return MicroLoss(0.0 * self.total, 0.0, neutral)


class Objective(Protocol):
    """A loss over one batch, and the conversion of its sums to logged metrics."""

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        """Compute the loss of one micro-batch.

        Args:
            student: The model that is trained.
            batch: The clips of this rank.
            phases: Timer for the named phases of the step.
            step: Number of the optimizer step, counted from 1.

        Returns:
            The loss, summed over the micro-batch, with gradient.
        """

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """Convert sums to logged metrics.

        Args:
            sums: `MicroLoss.sums` added up over all ranks and micro-batches, with the loss count as `count`.

        Returns:
            Metrics by name.
        """


class SupervisedObjective:
    """Cross-entropy on reference transcripts, with an auxiliary CTC loss if the model has a CTC head.

    The loss per token is (1 - w) CE + w CTC, the hybrid loss of Watanabe et al. (2017), doi 10.1109/JSTSP.2017.2763455.
    With w = 1 the decoder is not used.

    Args:
        ctc_weight: The weight w (`train.ctc_weight`).
        masks: Hides parts of the features. None hides nothing.
    """

    def __init__(self, ctc_weight: float, masks: SpecAugment | None = None):
        self.ctc_weight, self.masks = ctc_weight, masks
        self._has_warned = False

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        """See `Objective.__call__`. Clips whose transcript contains reserved tokens are dropped and logged."""
        targets = [student.text_ids(text) for text in batch.texts]
        reserved = [holds_reserved_tokens(ids, student.blocked_ids, student.stop_ids) for ids in targets]
        usable = [i for i, is_reserved in enumerate(reserved) if not is_reserved]
        for i in set(range(len(targets))) - set(usable):
            reason = f"its transcript contains reserved tokens: {batch.texts[i]!r}"
            log(f"dropped {batch.ids[i]}: {reason}", on_every_rank=True)
        dropped = len(targets) - len(usable)
        batch = batch.select(usable or [0])
        targets = [targets[i] for i in usable] or [[student.stop_ids[0]]]
        with phases("student"):
            ce, ctc, unaligned = student(lambda lm: self._losses(lm, batch, targets))
        self._warn(unaligned, len(targets))
        sums: dict[str, Tensor | float] = {"ctc": ctc.detach(), "ctc_unaligned": float(unaligned)}
        sums |= {} if ce is None else {"ce": ce.detach()}
        total = ctc if ce is None else (1 - self.ctc_weight) * ce + self.ctc_weight * ctc
        micro = MicroLoss(total, sum(map(len, targets)), sums)
        micro = micro if usable else micro.unweighted()
        micro.sums["dropped"] = float(dropped)
        return micro

    def _warn(self, unaligned: int, clips: int) -> None:
        """Say once that clips have no CTC loss. The metric `ctc_unaligned` counts them in each step."""
        if unaligned and not self._has_warned:
            log(
                f"warning: CTC: {unaligned} of {clips} clips of this batch have more tokens than encoder frames, so "
                "they have no CTC loss; a larger train.ctc_vocab_size gives fewer tokens (0: those of the model)",
                on_every_rank=True,
            )
            self._has_warned = True

    def _losses(self, lm: SpeechLM, batch: Batch, targets: list[list[int]]) -> tuple[Tensor | None, Tensor, int]:
        """Return both sums, and the number of clips with more tokens than frames, whose CTC loss counts as 0.

        The cross-entropy is None if its weight is 0.
        """
        audio = lm.encode_audio(batch.waveforms, self.masks)
        ce = self._cross_entropy(lm, audio, batch, targets) if self.ctc_weight < 1 else None
        if lm.ctc_head is None:
            return ce, audio[0].new_zeros((), dtype=torch.float32), 0
        return ce, *self._ctc(lm, audio, [lm.ctc_ids(text) for text in batch.texts])

    @staticmethod
    def _cross_entropy(lm: SpeechLM, audio: list[Tensor], batch: Batch, targets: list[list[int]]) -> Tensor:
        states = lm.transcript_states(lm.embed_prompts(audio, batch.languages), targets)
        flat = to_device([i for ids in targets for i in ids], lm.device, torch.long)
        return sum_in_parts(_cross_entropy, states, lm.head, flat)[0]  # in float32, also with bfloat16 weights

    @staticmethod
    def _ctc(lm: SpeechLM, audio: list[Tensor], targets: list[list[int]]) -> tuple[Tensor, int]:
        assert lm.ctc_head is not None
        logprobs = pad_sequence([lm.ctc_head(a).float().log_softmax(-1) for a in audio])
        texts = to_device([i for ids in targets for i in ids], lm.device, torch.long)
        sizes = torch.tensor([len(a) for a in audio]), torch.tensor([len(ids) for ids in targets])
        blank = logprobs.shape[-1] - 1
        unaligned = sum(len(a) < _fewest_frames(ids) for a, ids in zip(audio, targets, strict=True))
        ctc = ctc_loss(logprobs, texts, *sizes, blank=blank, reduction="sum", zero_infinity=True)
        return ctc, unaligned

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """See `Objective.rates`. Returns `ce` and `ctc` in nats per token, `dropped_clips` and `ctc_unaligned`.

        The two about CTC are absent without a CTC loss.
        """
        names = [*(["ce"] if self.ctc_weight < 1 else []), *(["ctc"] if self.ctc_weight else [])]
        means = {name: sums[name] / sums["count"] for name in names if sums["count"] > 0}
        unaligned = {"ctc_unaligned": sums["ctc_unaligned"]} if self.ctc_weight else {}
        return means | unaligned | {"dropped_clips": sums["dropped"]}


def _fewest_frames(ids: list[int]) -> int:
    """Return the number of frames that CTC needs: one per token, and a blank between two equal ones."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def _cross_entropy(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return cross_entropy(scores, targets, reduction="sum"), torch.ones_like(targets).sum()


class DistillationObjective:
    """On-policy distillation (Algorithm 1) on the student's own transcripts.

    Diagnostics over the whole vocabulary are computed every `distill.diagnose_every` steps.

    Args:
        opd: Teacher, token mapper, loss and their settings.
    """

    def __init__(self, opd: Opd):
        self.opd = opd
        self._has_warned = False

    def __call__(self, student: SpeechLM, batch: Batch, phases: Phases, step: int = 1) -> MicroLoss:
        """See `Objective.__call__`."""
        scored, every = self.opd.collect(student, batch, phases), self.opd.distill.diagnose_every
        with phases("student"):
            total, count = self.opd.rescore(student, scored, diagnose=every > 0 and step % every == 0)
        return MicroLoss(total, count, scored.sums)

    def rates(self, sums: dict[str, float]) -> dict[str, float]:
        """See `Objective.rates`. Returns VUSS, overlap, coverage, rollout rates, and this step's diagnostics if any."""
        found = rates(sums)
        self._warn(found.get("dropped_mass", 0.0))
        return found

    def _warn(self, lost: float) -> None:
        """Say once that the student lacks tokens of the teacher. The metric `dropped_mass` has the share per step."""
        if lost > MOST_LOST and not self._has_warned:
            log(
                f"warning: tokens: {100 * lost:.0f} % of the teacher's probability is on tokens that the student does "
                "not have (dropped_mass), so the loss compares other tokens than the teacher means; use the mapper "
                "byte_offsets, or two tokenizers that split the text alike"
            )
            self._has_warned = True


def make_objective(config: Config, student: SpeechLM, mesh: DeviceMesh | None = None) -> Objective:
    """Build the objective of the run. For distillation, teacher, token mapper and loss are created from plugins.

    Args:
        config: The run's configuration. `objective` selects the class.
        student: The model that is trained.
        mesh: The ranks over which the teacher is sharded with `fsdp.teacher: shard`, None for a single process.

    Returns:
        The objective.

    Raises:
        UserError: The configuration combines settings that exclude each other, or a plugin refuses its options.
    """
    if config.objective == "sft":
        return SupervisedObjective(config.train.ctc_weight, SpecAugment.of(config.augment))
    if config.train.ctc_weight:
        raise UserError(
            f"config key `train.ctc_weight` must be 0 with `objective: opd`, got {config.train.ctc_weight:g}: "
            "CTC needs reference transcripts"
        )
    device = str(student.device)
    teacher = registry.create("teacher", config.teacher.name, config.teacher.options, device=device)
    if config.fsdp.teacher == "shard":
        shard_teacher(config.teacher.name, teacher, mesh)
    mapper = registry.create(
        "token_mapper", config.mapper.name, config.mapper.options, student=student, teacher=teacher
    )
    loss = registry.create("loss", config.loss.name, config.loss.options)
    masks = SpecAugment.of(config.augment)
    return DistillationObjective(Opd(teacher, mapper, loss, config.rollout, config.distill, masks))


def shard_teacher(name: str, teacher: Teacher, mesh: DeviceMesh | None) -> None:
    """Shard the model of a local teacher in place, in its own dtype.

    Args:
        name: Name of the teacher plugin, for the error message.
        teacher: A teacher whose attribute `lm` is a `SpeechLM`.
        mesh: The ranks to shard over, None for a single process, which keeps the whole model.

    Raises:
        UserError: The teacher has no such attribute, for example because it runs behind a server.
    """
    lm = getattr(teacher, "lm", None)
    if not isinstance(lm, SpeechLM):
        raise UserError(
            f"config key `fsdp.teacher` must be `replicate` with teacher {name!r}: "
            "`shard` needs a teacher whose attribute `lm` is a SpeechLM"
        )
    if mesh is not None:
        shard(lm, mesh)
