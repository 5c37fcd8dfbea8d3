"""The skewed KL divergence on the support, which stays bounded if the student lacks tokens that the teacher expects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """Options of `skew_kl`.

    Attributes:
        alpha: Weight of the teacher in the mixture, greater than 0 and less than 1.
        temperature: tau, which divides the scores of both sides. Must be positive.
    """

    alpha: float = 0.1
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha must be greater than 0 and less than 1, got {self.alpha}; for alpha 0 use union_topk_kl"
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")


class SkewKl:
    """tau^2 KL(p_T || alpha p_T + (1 - alpha) p_S), summed over positions.

    p_T and p_S are the softmaxes of the teacher's and the student's scores over the valid tokens of the support, at
    temperature tau. A position counts if the teacher gives mass to at least two of these tokens. The divergence is at
    most -log alpha, and its gradient is bounded where p_S vanishes.

    Source: Ko et al. 2024, DistiLLM (arXiv:2402.03898), the alpha-SKL of section 3.1. The paper uses the whole
    vocabulary and alpha = 0.1.

    Args:
        options: Options of the loss.
    """

    def __init__(self, options: Options):
        self.alpha, self.temperature = options.alpha, options.temperature

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`."""
        import torch

        teacher_scores = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & ~teacher_scores.isnan()
        counted = (valid & (teacher_scores > -torch.inf)).sum(-1) >= 2
        valid = valid & counted[:, None]  # selecting rows would make the host wait for their number
        log_p_t, log_p_s = (
            (scores / self.temperature).masked_fill(~valid, -torch.inf).log_softmax(-1)
            for scores in (teacher_scores, student.scores_at(support.student_ids))
        )
        likely = log_p_t > -torch.inf  # other tokens add nothing: their mixture would be log 0 or NaN
        log_p_t = log_p_t.where(likely, 0.0)
        log_m = torch.logaddexp(log_p_t + math.log(self.alpha), log_p_s.where(likely, 0.0) + math.log1p(-self.alpha))
        return self.temperature**2 * (log_p_t.exp() * (log_p_t - log_m) * likely).sum(), counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the loss by name.

    Args:
        register: Function of (name, factory, dataclass of the options).
    """
    register("skew_kl", SkewKl, Options)
