"""The skewed KL divergence on the support, for students that hold next to nothing of what the teacher holds likely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """alpha: the teacher's share of the mixture, above 0 and below 1; temperature: that divides both sides' scores."""

    alpha: float = 0.1
    temperature: float = 1.0

    def __post_init__(self):
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha}: must be above 0 (0 is union_topk_kl) and below 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be above 0")


class SkewKl:
    """tau^2 KL(p || alpha p + (1 - alpha) q), summed over positions.

    p and q are the teacher's and the student's softmax at temperature tau over the valid tokens of the support.
    Counted are positions with at least two tokens that the teacher answers for. Source: Ko et al. 2024, DistiLLM
    (arXiv:2402.03898), the alpha-SKL of section 3.1, there over the whole vocabulary, with alpha = 0.1. It is at most
    -log alpha, and its gradient stays bounded where q vanishes.
    """

    def __init__(self, options: Options):
        self.alpha, self.temperature = options.alpha, options.temperature

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        import torch

        known = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & ~known.isnan()
        counted = (valid & (known > -torch.inf)).sum(-1) >= 2
        scores = student.scores_at(support.student_ids)
        p, q = (
            (side / self.temperature).masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
            for side in (known, scores)
        )
        likely = p > -torch.inf  # the others add nothing, and their mixture would be log 0
        p = p.where(likely, 0.0)
        mixture = torch.logaddexp(p + math.log(self.alpha), q.where(likely, 0.0) + math.log1p(-self.alpha))
        return self.temperature**2 * (p.exp() * (p - mixture) * likely).sum(), counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the loss by name."""
    register("skew_kl", SkewKl, Options)
