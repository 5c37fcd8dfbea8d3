"""The published code's arithmetic, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor


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
