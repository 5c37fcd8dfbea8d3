"""The union of the teacher's and the student's top-k tokens, in both vocabularies."""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.interfaces import Support, TokenMapper


def union_support(teacher_topk: Tensor, student_topk: Tensor, visited: Tensor, mapper: TokenMapper) -> Support:
    """Join teacher ids [P, k_t] and student ids [P, k_s] (paper, section 3.3) without a loop over positions.

    visited: student ids [P] that the transcript holds. A token without a counterpart is not valid; one that both name
    counts once. The result is [P, k_t + k_s] wide, the teacher's part first.
    """
    mapped, counterparts = mapper.to_student(teacher_topk), mapper.to_teacher(student_topk)
    same = (mapped[:, :, None] == student_topk[:, None, :]) & (mapped >= 0)[:, :, None]
    valid = torch.cat([mapped >= 0, (counterparts >= 0) & ~same.any(1)], dim=1)
    return Support(
        student_ids=torch.cat([mapped, student_topk], dim=1).where(valid, 0),
        teacher_ids=torch.cat([teacher_topk, counterparts], dim=1).where(valid, 0),
        valid=valid,
        from_teacher=torch.cat([mapped >= 0, torch.zeros_like(student_topk, dtype=torch.bool)], dim=1),
        from_student=torch.cat([same.any(2), torch.ones_like(student_topk, dtype=torch.bool)], dim=1) & valid,
        visited_student=visited,
        visited_teacher=mapper.to_teacher(visited),
    )
