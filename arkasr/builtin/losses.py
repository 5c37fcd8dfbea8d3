"""Losses on top-k supports, the paper's equation (1) first; and the names of all losses that ship inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

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
    register("full_kl", FullKl, NoLossOptions)
    register("reverse_kl", ReverseKl, NoLossOptions)
    register("jsd", Jsd, JsdOptions)
    register("sampled_reverse_kl", SampledReverseKl, NoLossOptions)
    register("ark_compat", ArkCompat, ArkCompatOptions)


class _Full:
    """Compares on every valid token of the support it is given, some positions at a time."""

    needs = "shared"

    def __init__(self, options: object):
        """options: none are read."""

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        from arkasr.builtin.divergences import position_by_position

        return position_by_position(self.divergence, student, teacher, support)


class FullKl(_Full):
    """KL(teacher || student) over all shared tokens and a bucket for the rest, summed over positions.

    With equal vocabularies it is sum over v of p_T(v) (log p_T(v) - log p_S(v)), the forward KL of knowledge
    distillation (Hinton et al., arXiv 1503.02531), on the student's own transcripts (GKD, arXiv 2306.13649).
    """

    def divergence(self, theirs: Tensor, ours: Tensor) -> Tensor:
        """Compare outcomes [P, U]: [P]."""
        from arkasr.builtin.divergences import kl

        return kl(theirs, ours)


class ReverseKl(_Full):
    """KL(student || teacher) over all shared tokens and a bucket for the rest, summed over positions.

    With equal vocabularies it is sum over v of p_S(v) (log p_S(v) - log p_T(v)) (arXiv 2604.13016, equation 4): mode
    seeking, where full_kl covers all that the teacher holds likely.
    """

    def divergence(self, theirs: Tensor, ours: Tensor) -> Tensor:
        """Compare outcomes [P, U]: [P]."""
        from arkasr.builtin.divergences import kl

        return kl(ours, theirs)


@dataclass
class JsdOptions:
    """beta: weight of the teacher in the mixture, between 0 and 1, neither included."""

    beta: float = 0.5


class Jsd(_Full):
    """Generalised Jensen-Shannon divergence over all shared tokens and a bucket for the rest, summed over positions.

    beta KL(T || M) + (1 - beta) KL(S || M) with M = beta T + (1 - beta) S (GKD, arXiv 2306.13649, section 2).
    Divided by beta it goes to KL(T || S) as beta goes to 0; divided by 1 - beta, to KL(S || T) as beta goes to 1.
    """

    def __init__(self, options: JsdOptions):
        if not 0 < options.beta < 1:
            raise arkasr.UserError(
                f"loss.options.beta={options.beta}: must be above 0 and below 1; full_kl and reverse_kl are the ends"
            )
        self.beta = options.beta

    def divergence(self, theirs: Tensor, ours: Tensor) -> Tensor:
        """Compare outcomes [P, U]: [P]."""
        from arkasr.builtin.divergences import jsd

        return jsd(theirs, ours, self.beta)


@dataclass
class NoLossOptions:
    """This loss has no options."""


class SampledReverseKl:
    """log p_S(y) - log p_T(y) at the visited token y (arXiv 2604.13016, equation 3), with the policy gradient.

    The gradient is -A grad log p_S(y), A = -(log p_S(y) - log p_T(y)) held fixed. Where y is sampled from the student
    at temperature 1, the value has KL(student || teacher) as its mean and this gradient that KL's gradient: the
    missing term, grad log p_S(y) itself, has mean zero. Differentiating the value instead would leave only that term,
    a gradient that knows nothing of the teacher. Greedy rollouts visit the best token only, and neither mean holds.
    A single draw may be below 0. Not counted are positions whose token the teacher lacks, or gives no probability.
    """

    def __init__(self, options: NoLossOptions):
        """options: there are none."""

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        shared = support.visited_teacher >= 0
        known = teacher.logprobs_at(support.visited_teacher.clamp(min=0)[:, None])[:, 0].detach().float()
        given = student.logprobs_at(support.visited_student[:, None])[:, 0]
        counted = shared & known.isfinite() & ~given.isneginf()
        known, given = known[counted], given[counted]
        gap = given.detach() - known
        return (gap + gap * (given - given.detach())).sum(), counted.sum()


@dataclass
class ArkCompatOptions:
    """temperature: tau of equation (1)."""

    temperature: float = 1.0


class ArkCompat:
    """Equation (1) as the published trainer computes it (AutoArk/open-audio-opd, aad5c81), to compare with; not to use.

    tau^2 KL(softmax(v / tau) || softmax(z_S / tau)) on the union support, where v is the teacher's raw logit for a
    token of its own top k, but its log-probability for a token that only the student named. One softmax mixes the
    two, so the teacher's probability of a student-only token is multiplied by exp(-log Z), some 1e-9 to 1e-14 for
    logits of the usual size: such tokens are pushed down whatever the teacher thinks of them. The paper's text
    (section 3.3) has log-probabilities throughout: union_topk_kl. Not reproduced is what surrounds this arithmetic
    there: bfloat16 scores, a mean over ranks of their means, and the stop token's absence from the student's
    candidates.

    The teacher's view must hold raw logits, that is have `scores_at`, as one in this process has.
    """

    def __init__(self, options: ArkCompatOptions):
        if options.temperature <= 0:
            raise arkasr.UserError(f"loss.options.temperature={options.temperature}: must be above 0")
        self.temperature = options.temperature

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`.

        Raises UserError where the teacher's view has no raw logits.
        """
        import torch

        from arkasr.builtin.divergences import kl, renormalised

        if not hasattr(teacher, "scores_at"):
            raise arkasr.UserError(
                f"loss.name=ark_compat: needs the teacher's raw logits, which its {type(teacher).__name__} does not "
                "hold; use a teacher in this process, or loss.name=union_topk_kl"
            )
        raw, true = (read(support.teacher_ids).detach() for read in (teacher.scores_at, teacher.logprobs_at))
        mixed, given = torch.where(support.from_teacher, raw, true), student.scores_at(support.student_ids)
        valid = support.valid & ~mixed.isnan() & ~given.isneginf()
        counted = (valid & (mixed > -torch.inf)).sum(-1) >= 2
        target, ours = (renormalised(side[counted], valid[counted], self.temperature) for side in (mixed, given))
        return kl(target, ours).sum() * self.temperature**2, counted.sum()
