"""Losses on top-k supports, the paper's equation (1) first; and the names of all losses that ship inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr
from arkasr.builtin.losses_compat import ArkCompat, ArkCompatOptions
from arkasr.builtin.losses_full import FullKl, Jsd, JsdOptions, ReverseKl
from arkasr.builtin.losses_sampled import NoOptions, SampledReverseKl

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class UnionTopkKlOptions:
    """temperature: tau of equation (1); tail: compare all other mass too, as one more outcome; tau is then 1."""

    temperature: float = 1.0
    tail: bool = False


@dataclass
class TopkOptions(UnionTopkKlOptions):
    """temperature: divides both sides; tail: compare all other mass too, as one more outcome; temperature is then 1."""


class UnionTopkKl:
    """tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)) on the union support (equation 1), summed over positions.

    Counted are positions with at least two valid tokens. Both sides are renormalised on the support, so that scores
    that differ from log-probabilities by a constant a position give the same number: the teacher's true
    log-probabilities and the student's logits are never mixed within one side. With `tail` nothing is renormalised:
    both sides are true probabilities of the support's tokens and of all other tokens together, k + 1 outcomes whose KL
    is at most that of the whole distributions; counted are positions with a valid token.
    """

    def __init__(self, options: UnionTopkKlOptions):
        if options.temperature <= 0:
            raise arkasr.UserError(f"loss.options.temperature={options.temperature}: must be above 0")
        if options.tail and options.temperature != 1:
            raise arkasr.UserError(
                f"loss.options.temperature={options.temperature}: with tail=true it must be 1: the mass outside the "
                "support is known at the model's own temperature only"
            )
        self.temperature, self.tail = options.temperature, options.tail

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, outcomes

        theirs, ours, counted = outcomes(student, teacher, support, support.valid, self.temperature, self.tail)
        return kl(theirs, ours).sum() * self.temperature**2, counted.sum()


class TeacherTopkKl(UnionTopkKl):
    """tau^2 KL(teacher || student) on the teacher's top k alone, summed over positions; `tail` as in union_topk_kl.

    The support of ms-swift's and verl's top-k distillation. Without a tail both sides are renormalised on it, so the
    student's mass outside it, a premature stop say, meets no gradient.
    """

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, outcomes

        chosen = support.valid & support.from_teacher
        theirs, ours, counted = outcomes(student, teacher, support, chosen, self.temperature, self.tail)
        return kl(theirs, ours).sum() * self.temperature**2, counted.sum()


class StudentTopkReverseKl(UnionTopkKl):
    """tau^2 KL(student || teacher), both renormalised on the student's top k (arXiv 2604.13016, equation 5).

    There tau is 1. The top k are those of the rollout. Left out are tokens to which the teacher gives no probability,
    where the KL has no value. `tail` as in union_topk_kl; without it a student can lower this loss by moving mass off
    the support.
    """

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, outcomes

        chosen = support.valid & support.from_student
        theirs, ours, counted = outcomes(student, teacher, support, chosen, self.temperature, self.tail, zeros=False)
        return kl(ours, theirs).sum() * self.temperature**2, counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the losses by name."""
    register("union_topk_kl", UnionTopkKl, UnionTopkKlOptions)
    register("teacher_topk_kl", TeacherTopkKl, TopkOptions)
    register("student_topk_reverse_kl", StudentTopkReverseKl, TopkOptions)
    register("full_kl", FullKl, NoOptions)
    register("reverse_kl", ReverseKl, NoOptions)
    register("jsd", Jsd, JsdOptions)
    register("sampled_reverse_kl", SampledReverseKl, NoOptions)
    register("ark_compat", ArkCompat, ArkCompatOptions)
