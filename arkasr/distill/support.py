"""The union of the teacher's and the student's top-k tokens, in both vocabularies."""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.interfaces import Support, TokenMapper


def union_support(teacher_topk: Tensor, student_topk: Tensor, mapper: TokenMapper) -> Support:
    """Join teacher ids [P, k_t] and student ids [P, k_s] (paper, section 3.3) without a loop over positions.

    A token without a counterpart is not valid; one that both name counts once. The result is [P, k_t + k_s] wide,
    the teacher's part first.
    """
    from_teacher = mapper.to_student(teacher_topk)
    to_teacher = mapper.to_teacher(student_topk)
    both = (student_topk[:, :, None] == from_teacher[:, None, :]).any(-1) & (to_teacher >= 0)
    valid = torch.cat([from_teacher >= 0, (to_teacher >= 0) & ~both], dim=1)
    student_ids = torch.cat([from_teacher, student_topk], dim=1)
    teacher_ids = torch.cat([teacher_topk, to_teacher], dim=1)
    return Support(student_ids.where(valid, 0), teacher_ids.where(valid, 0), valid, both.sum(-1))
