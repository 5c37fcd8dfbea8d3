"""Losses on whole distributions: all shared tokens, and one bucket a side for the mass on all others.

Both sides are then true distributions, however much the vocabularies share. A token to which the teacher gives no
probability (or none that its view knows), or that the student may never say, goes into the bucket on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


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
