"""The loss at the visited token alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class NoOptions:
    """This loss has no options."""


class SampledReverseKl:
    """log p_S(y) - log p_T(y) at the visited token y (arXiv 2604.13016, equation 3), with the policy gradient.

    The gradient is -A grad log p_S(y), A = -(log p_S(y) - log p_T(y)) held fixed. Where y is sampled from the student
    at temperature 1, the value has KL(student || teacher) as its mean and this gradient that KL's gradient: the
    missing term, grad log p_S(y) itself, has mean zero. Differentiating the value instead would leave only that term,
    a gradient that knows nothing of the teacher. Greedy rollouts visit the best token only, and neither mean holds.
    A single draw may be below 0. Not counted are positions whose token the teacher lacks, or gives no probability.
    """

    def __init__(self, options: NoOptions):
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
