"""The tokens compared at each position: the union of both top-k sets, or all tokens that the vocabularies share."""

from __future__ import annotations

from dataclasses import replace

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


def answered(support: Support, logprobs: Tensor) -> Support:
    """Leave no token valid where the teacher's best log-probabilities [P, k] hold a NaN: it gave no distribution."""
    here = ~logprobs.isnan().any(-1, keepdim=True)
    sets = {name: getattr(support, name) & here for name in ("valid", "from_teacher", "from_student")}
    return replace(support, **sets)


def shared_support(vocab_size: int, visited: Tensor, mapper: TokenMapper) -> Support:
    """List the student's tokens (of `vocab_size`) that have a counterpart which maps back: the same n at P positions.

    visited: student ids [P] that the transcript holds. The tables [P, n] are expanded from one row, not copied.
    """
    ours = torch.arange(vocab_size, device=visited.device)
    theirs = mapper.to_teacher(ours)
    shared = (theirs >= 0) & (mapper.to_student(theirs) == ours)
    ids = [table[shared].expand(len(visited), -1) for table in (ours, theirs, shared)]
    return Support(*ids, ids[2], ids[2], visited, mapper.to_teacher(visited))
