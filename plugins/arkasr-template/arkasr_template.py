"""A loss: the squared Hellinger distance on the support. Put your own in its place.

Every `arkasr` command imports this module, so torch is imported inside functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """temperature: that divides both sides' scores."""

    temperature: float = 1.0

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: must be above 0")


class Template:
    """1 - sum sqrt(p q), summed over positions; p and q are softmaxes over the valid tokens of the support."""

    def __init__(self, options: Options):
        self.temperature = options.temperature

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum (float32) and the number of counted positions; see `arkasr.Loss`."""
        import torch

        known = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & ~known.isnan()
        counted = (valid & (known > -torch.inf)).sum(-1) >= 2
        p, q = (
            (side / self.temperature).masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
            for side in (known, student.scores_at(support.student_ids))
        )
        return (1 - ((p + q) / 2).logsumexp(-1).exp()).sum(), counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the loss by name."""
    register("template", Template, Options)
