"""The eight losses that ship with arkasr. `UnionTopkKl`, equation (1) of the paper, comes first.

Notation: p_T is the teacher's and p_S the student's next-token distribution, z_T and z_S are their scores, U_t is the
union support at position t, and tau is the temperature. Every loss returns a sum over positions and the number of
counted positions. The caller divides the sum by the global count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


# Limits of tau: log-probabilities of up to 1e3 and -inf, divided by it, are still numbers in float32.
COLDEST, WARMEST = 0.01, 100.0


@dataclass
class UnionTopkKlOptions:
    """Options of `union_topk_kl`.

    Attributes:
        temperature: tau of equation (1), from 0.01 to 100.
        tail: Compare the mass of all other tokens as one more outcome. Requires `temperature` 1.
    """

    temperature: float = 1.0
    tail: bool = False

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        if self.tail and self.temperature != 1:
            raise arkasr.UserError(
                f"config key `loss.options.temperature` must be 1 if `loss.options.tail` is true, got "
                f"{self.temperature}; the mass outside the support is known at temperature 1 only"
            )


class UnionTopkKl:
    """Equation (1) of the paper: KL(p_T || p_S) on the union support U_t, summed over positions.

        tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)),  both softmaxes over the valid tokens of U_t

    A position counts if U_t has at least two valid tokens. Both sides are renormalised on U_t, so adding a constant to
    one side's scores at a position changes nothing. Here z_T are the teacher's true log-probabilities and z_S the
    student's logits. The two kinds of scores are never mixed within one side.

    With `tail`, nothing is renormalised. Both sides are the true probabilities of the tokens in U_t and, as one more
    outcome, of all other tokens together. This divergence is at most that of the whole distributions. All positions
    with at least one valid token count.
    """

    def __init__(self, options: UnionTopkKlOptions):
        """Create the loss.

        Args:
            options: Options of the loss.
        """
        self.temperature, self.tail = options.temperature, options.tail

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, masked_sum, outcomes

        log_p_t, log_p_s, counted = outcomes(student, teacher, support, support.valid, self.temperature, self.tail)
        return masked_sum(kl(log_p_t, log_p_s), counted) * self.temperature**2, counted.sum()


def _check_temperature(temperature: float) -> None:
    if not COLDEST <= temperature <= WARMEST:
        allowed = f"from {COLDEST:g} to {WARMEST:g}"
        raise arkasr.UserError(f"config key `loss.options.temperature` must be {allowed}, got {temperature}")


@dataclass
class TopkOptions(UnionTopkKlOptions):
    """Options of `teacher_topk_kl` and `student_topk_reverse_kl`.

    Attributes:
        temperature: tau, which divides the scores of both sides, from 0.01 to 100.
        tail: Compare the mass of all other tokens as one more outcome. Requires `temperature` 1.
    """


class TeacherTopkKl(UnionTopkKl):
    """KL(p_T || p_S) on the teacher's top k only, summed over positions.

        tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)),  both softmaxes over the teacher's top k

    The top-k distillation of ms-swift and verl uses this support. Without `tail`, both sides are renormalised on it.
    Student mass outside it, such as that of a premature stop token, then gets no gradient. For `tail` see
    `union_topk_kl`.
    """

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, masked_sum, outcomes

        chosen = support.valid & support.from_teacher
        log_p_t, log_p_s, counted = outcomes(student, teacher, support, chosen, self.temperature, self.tail)
        return masked_sum(kl(log_p_t, log_p_s), counted) * self.temperature**2, counted.sum()


class StudentTopkReverseKl(UnionTopkKl):
    """KL(p_S || p_T) on the student's top k only, summed over positions (arXiv 2604.13016, equation 5, with tau = 1).

        tau^2 KL(softmax(z_S / tau) || softmax(z_T / tau)),  both softmaxes over the student's top k

    The student's top k are the candidates of the rollout. Tokens with p_T = 0 are left out, because the divergence is
    infinite there. Without `tail`, the student can lower this loss by moving mass off the support. For `tail` see
    `union_topk_kl`.
    """

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        from arkasr.builtin.divergences import kl, masked_sum, outcomes

        chosen = support.valid & support.from_student
        log_p_t, log_p_s, counted = outcomes(
            student, teacher, support, chosen, self.temperature, self.tail, zeros=False
        )
        return masked_sum(kl(log_p_s, log_p_t), counted) * self.temperature**2, counted.sum()


@dataclass
class NoLossOptions:
    """This loss has no options."""


class _WholeVocabularyLoss(ABC):
    """A divergence on all shared tokens, and one more outcome for the mass of all other tokens.

    The student's logits are computed for a few positions at a time.
    """

    needs = "shared"

    def __init__(self, options: object):  # noqa: B027  # every factory is called with its options
        """Accept any options. None are read."""

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        from arkasr.builtin.divergences import sum_over_positions

        return sum_over_positions(self._divergence, student, teacher, support)

    @abstractmethod
    def _divergence(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        """Compare outcomes [P, U + 1] and return one number per position [P]."""


class FullKl(_WholeVocabularyLoss):
    """KL(p_T || p_S) on all shared tokens, with one more outcome for all other tokens, summed over positions.

        sum over v of p_T(v) (log p_T(v) - log p_S(v)),  if the vocabularies are equal

    This is the forward KL divergence of knowledge distillation (Hinton et al., arXiv 1503.02531), here on the student's
    own transcripts (GKD, arXiv 2306.13649).
    """

    def _divergence(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        from arkasr.builtin.divergences import kl

        return kl(log_p_t, log_p_s)


class ReverseKl(_WholeVocabularyLoss):
    """KL(p_S || p_T) on all shared tokens, with one more outcome for all other tokens, summed over positions.

        sum over v of p_S(v) (log p_S(v) - log p_T(v)),  if the vocabularies are equal

    Source: arXiv 2604.13016, equation 4. This divergence is mode seeking, while `full_kl` covers all tokens that are
    likely under p_T.
    """

    def _divergence(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        from arkasr.builtin.divergences import kl

        return kl(log_p_s, log_p_t)


@dataclass
class JsdOptions:
    """Options of `jsd`.

    Attributes:
        beta: Weight of the teacher in the mixture, greater than 0 and less than 1.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise arkasr.UserError(
                f"config key `loss.options.beta` must be greater than 0 and less than 1, got {self.beta}; for the "
                "limits use `loss.name=full_kl` and `loss.name=reverse_kl`"
            )


class Jsd(_WholeVocabularyLoss):
    """Generalised Jensen-Shannon divergence on all shared tokens and the rest, summed over positions.

        beta KL(p_T || m) + (1 - beta) KL(p_S || m),  m = beta p_T + (1 - beta) p_S

    All tokens that are not shared are one more outcome. Source: GKD, arXiv 2306.13649, section 2. Divided by beta, the
    loss approaches KL(p_T || p_S) as beta approaches 0. Divided by 1 - beta, it approaches KL(p_S || p_T) as beta
    approaches 1.
    """

    def __init__(self, options: JsdOptions):
        """Create the loss.

        Args:
            options: Options of the loss.
        """
        self.beta = options.beta

    def _divergence(self, log_p_t: Tensor, log_p_s: Tensor) -> Tensor:
        from arkasr.builtin.divergences import jsd

        return jsd(log_p_t, log_p_s, self.beta)


class SampledReverseKl:
    """One-sample estimate of KL(p_S || p_T) with the policy gradient, summed over positions.

        value:    log p_S(y) - log p_T(y)  at the transcript's token y  (arXiv 2604.13016, equation 3)
        gradient: -A grad log p_S(y)  with A = log p_T(y) - log p_S(y) held fixed

    If y is sampled from p_S at temperature 1, the expected value is KL(p_S || p_T), and the expected gradient is the
    gradient of that divergence. The gradient of the value is not used: it is grad log p_S(y), which has mean zero and
    does not depend on the teacher. With greedy rollouts y is always the best token, and neither expectation holds. A
    single value may be negative. Positions are not counted if the teacher's vocabulary lacks y, or if p_T(y) is 0 or
    unknown.
    """

    def __init__(self, options: NoLossOptions):
        """Accept the empty options.

        Args:
            options: Not read.
        """

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        shared = support.visited_teacher >= 0
        log_p_t = teacher.logprobs_at(support.visited_teacher.clamp(min=0)[:, None])[:, 0].detach().float()
        log_p_s = student.logprobs_at(support.visited_student[:, None])[:, 0]
        counted = shared & log_p_t.isfinite() & ~log_p_s.isneginf()
        log_p_t, log_p_s = log_p_t.where(counted, 0.0), log_p_s.where(counted, 0.0)
        gap = log_p_s.detach() - log_p_t
        return (gap + gap * (log_p_s - log_p_s.detach())).sum(), counted.sum()


@dataclass
class ArkCompatOptions:
    """Options of `ark_compat`.

    Attributes:
        temperature: tau of equation (1), from 0.01 to 100.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)


class ArkCompat:
    """Equation (1) as the published trainer computes it. For comparison only, do not train with it.

        tau^2 KL(softmax(x_T / tau) || softmax(z_S / tau)),  both softmaxes over the valid tokens of U_t

    Source: AutoArk/open-audio-opd, revision aad5c81. x_T is the teacher's raw logit for tokens of the teacher's top k,
    but its log-probability for tokens that only the student's top k names. One softmax mixes the two. The teacher's
    probability of a token that only the student names is therefore multiplied by exp(-log Z), about 1e-9 to 1e-14 for
    logits of usual size. The loss then lowers such tokens even if p_T is high. The paper (section 3.3) has
    log-probabilities for all tokens, as `union_topk_kl` does.

    With the teacher's option `mask_control_tokens` and with `distill.candidates=published`, this is the published loss
    of one rank. Tokens that the teacher masks are not compared. Two other properties of that trainer are not
    reproduced: bfloat16 scores, and a mean over ranks of their means. The teacher's view must hold raw logits: it must
    have `scores_at`, as the views of teachers in this process do.
    """

    def __init__(self, options: ArkCompatOptions):
        """Create the loss.

        Args:
            options: Options of the loss.
        """
        self.temperature = options.temperature

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`.

        Raises:
            UserError: If the teacher's view has no raw logits.
        """
        import torch

        from arkasr.builtin.divergences import kl, masked_sum, renormalised

        if not hasattr(teacher, "scores_at"):
            raise arkasr.UserError(
                f"loss `ark_compat` needs the teacher's raw logits, but its view ({type(teacher).__name__}) has no "
                "`scores_at`; use a teacher in this process, or `loss.name=union_topk_kl`"
            )
        raw, true = (read(support.teacher_ids).detach() for read in (teacher.scores_at, teacher.logprobs_at))
        x_t, z_s = torch.where(support.from_teacher, raw, true), student.scores_at(support.student_ids)
        valid = support.valid & x_t.isfinite() & ~z_s.isneginf()
        counted = valid.sum(-1) >= 2
        valid = valid & counted[:, None]
        log_p_t, log_p_s = (renormalised(side, valid, self.temperature) for side in (x_t, z_s))
        return masked_sum(kl(log_p_t, log_p_s), counted) * self.temperature**2, counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the losses by name.

    Args:
        register: See `arkasr.hookspecs`.
    """
    register("union_topk_kl", UnionTopkKl, UnionTopkKlOptions)
    register("teacher_topk_kl", TeacherTopkKl, TopkOptions)
    register("student_topk_reverse_kl", StudentTopkReverseKl, TopkOptions)
    register("full_kl", FullKl, NoLossOptions)
    register("reverse_kl", ReverseKl, NoLossOptions)
    register("jsd", Jsd, JsdOptions)
    register("sampled_reverse_kl", SampledReverseKl, NoLossOptions)
    register("ark_compat", ArkCompat, ArkCompatOptions)
