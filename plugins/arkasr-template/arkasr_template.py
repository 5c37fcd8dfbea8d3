"""A loss: the squared Hellinger distance on the support. Replace it with your own plugin.

Every `arkasr` command imports this module, so import torch inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Options:
    """Options of the loss.

    Attributes:
        temperature: tau, which divides the scores of both sides. Must be positive.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")


class Template:
    """1 - sum over v of sqrt(p_T(v) p_S(v)), summed over positions.

    p_T and p_S are the softmaxes of the teacher's and the student's scores over the valid tokens of the support. A
    position counts if the teacher gives mass to at least two of them.

    Args:
        options: Options of the loss.
    """

    def __init__(self, options: Options):
        self.temperature = options.temperature

    def __call__(
        self, student: arkasr.StudentView, teacher: arkasr.DistributionView, support: arkasr.Support
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and the number of counted positions. See `arkasr.Loss`.

        Args:
            student: Student's view of P positions, with gradient.
            teacher: Teacher's view of P positions.
            support: The tokens to compare, [P, U].

        Returns:
            The sum, float32 scalar, and the count, int64 scalar.
        """
        import torch

        teacher_scores = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & ~teacher_scores.isnan()
        counted = (valid & (teacher_scores > -torch.inf)).sum(-1) >= 2
        log_p_t, log_p_s = (
            (scores / self.temperature).masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
            for scores in (teacher_scores, student.scores_at(support.student_ids))
        )
        return (1 - ((log_p_t + log_p_s) / 2).logsumexp(-1).exp()).sum(), counted.sum()


@arkasr.hookimpl
def register_losses(register):
    """Register the loss by name.

    Args:
        register: Function of (name, factory, dataclass of the options).
    """
    register("template", Template, Options)
