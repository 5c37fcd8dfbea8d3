"""Losses: the paper's equation (1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class UnionTopkKlOptions:
    """temperature: tau of equation (1)."""

    temperature: float = 1.0


class UnionTopkKl:
    """tau^2 KL(softmax(z_T / tau) || softmax(z_S / tau)) on the union support (equation 1), summed over positions.

    Counted are positions with at least two valid tokens. Both sides are renormalised on the support, so that scores
    that differ from log-probabilities by a constant a position give the same number: the teacher's true
    log-probabilities and the student's logits are never mixed within one side.
    """

    def __init__(self, options: UnionTopkKlOptions):
        if options.temperature <= 0:
            raise arkasr.UserError(f"loss.options.temperature={options.temperature}: must be above 0")
        self.temperature = options.temperature

    def __call__(self, student, teacher, support: arkasr.Support) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        import torch

        known = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & ~known.isnan()
        counted = (valid & (known > -torch.inf)).sum(-1) >= 2
        target = (known / self.temperature).masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
        scores = (student.scores_at(support.student_ids) / self.temperature).masked_fill(~valid, -torch.inf)
        given = scores[counted].log_softmax(-1)
        inside = (target > -torch.inf) & (given > -torch.inf)
        gap = torch.where(inside, target, 0.0) - torch.where(inside, given, 0.0)
        total = (target.exp() * gap * inside).sum() * self.temperature**2
        return total, counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the losses by name."""
    register("union_topk_kl", UnionTopkKl, UnionTopkKlOptions)
