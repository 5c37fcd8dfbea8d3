"""The tokens compared at each position: the union of both top-k sets, or all shared tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from arkasr.interfaces import Support, TokenMapper


def published_candidates(topk: Tensor, visited: Tensor, stop_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the student's candidates by the rule of the published trainer (AutoArk/open-audio-opd, aad5c81).

    1. Stop tokens are removed from the top k.
    2. The visited token is put first if it is not among the others. It may be a stop token.
    3. The first k tokens are kept.

    Args:
        topk: Student ids, int64 [P, k], best first, distinct in each row.
        visited: Student ids that the transcript has at these positions, int64 [P].
        stop_ids: The student's stop ids.

    Returns:
        Ids, int64 [P, k + 1], and bool [P, k + 1], which of them are candidates. Those are distinct in each row.
    """
    kept = torch.ones_like(topk, dtype=torch.bool)
    for stop in stop_ids:
        kept &= topk != stop
    first = ~((topk == visited[:, None]) & kept).any(1, keepdim=True)
    candidates = torch.cat([first, kept], dim=1)
    return torch.cat([visited[:, None], topk], dim=1), candidates & (candidates.cumsum(1) <= topk.shape[1])


def union_support(
    teacher_topk: Tensor,
    student_topk: Tensor,
    visited: Tensor,
    mapper: TokenMapper,
    candidates: Tensor | None = None,
) -> Support:
    """Return the union U_t of the teacher's and the student's top-k sets at P positions (paper, section 3.3).

    Columns 0 to k_t - 1 hold the teacher's tokens, the remaining k_s columns the student's. A token without a
    counterpart in the other vocabulary is not valid. Tokens in both sets are valid once, in the teacher's columns.

    Args:
        teacher_topk: Teacher ids, int64 [P, k_t], distinct in each row.
        student_topk: Student ids, int64 [P, k_s], distinct in each row.
        visited: Student ids that the transcript has at these positions, int64 [P].
        mapper: Maps ids between the two vocabularies.
        candidates: Bool [P, k_s], which of the student's ids count. None: all do.

    Returns:
        A support with tables [P, k_t + k_s].
    """
    mapped, counterparts = mapper.to_student(teacher_topk), mapper.to_teacher(student_topk)
    chosen = torch.ones_like(student_topk, dtype=torch.bool) if candidates is None else candidates
    same = (mapped[:, :, None] == student_topk[:, None, :]) & (mapped >= 0)[:, :, None] & chosen[:, None, :]
    valid = torch.cat([mapped >= 0, (counterparts >= 0) & chosen & ~same.any(1)], dim=1)
    return Support(
        student_ids=torch.cat([mapped, student_topk], dim=1).where(valid, 0),
        teacher_ids=torch.cat([teacher_topk, counterparts], dim=1).where(valid, 0),
        valid=valid,
        from_teacher=torch.cat([mapped >= 0, torch.zeros_like(student_topk, dtype=torch.bool)], dim=1),
        from_student=torch.cat([same.any(2), torch.ones_like(student_topk, dtype=torch.bool)], dim=1) & valid,
        visited_student=visited,
        visited_teacher=mapper.to_teacher(visited),
    )


def drop_missing_positions(support: Support, logprobs: Tensor) -> Support:
    """Mark all tokens as not valid where the teacher returned NaN instead of a distribution.

    Args:
        support: The support of P positions.
        logprobs: The teacher's top-k log-probabilities, float32 [P, k], in nats.

    Returns:
        A support whose `valid`, `from_teacher` and `from_student` are False at positions with a NaN in `logprobs`.
    """
    present = ~logprobs.isnan().any(-1, keepdim=True)
    masks = {name: getattr(support, name) & present for name in ("valid", "from_teacher", "from_student")}
    return replace(support, **masks)


def shared_tokens(vocab_size: int, device: torch.device, mapper: TokenMapper) -> tuple[Tensor, Tensor]:
    """Return the n tokens that both vocabularies share. The host waits for their number.

    A student token is shared if its teacher token maps back to it.

    Args:
        vocab_size: Size of the student's vocabulary.
        device: Device of the result.
        mapper: Maps ids between the two vocabularies.

    Returns:
        The student's ids and the teacher's ids of these tokens, both int64 [n].
    """
    student_ids = torch.arange(vocab_size, device=device)
    teacher_ids = mapper.to_teacher(student_ids)
    shared = (teacher_ids >= 0) & (mapper.to_student(teacher_ids) == student_ids)
    return student_ids[shared], teacher_ids[shared]


def shared_support(student_ids: Tensor, teacher_ids: Tensor, visited: Tensor, mapper: TokenMapper) -> Support:
    """Return a support of all n tokens that both vocabularies share, the same tokens at each of P positions.

    Args:
        student_ids: Student ids of the shared tokens, int64 [n].
        teacher_ids: Teacher ids of the same tokens, int64 [n].
        visited: Student ids that the transcript has at these positions, int64 [P].
        mapper: Maps ids between the two vocabularies.

    Returns:
        A support whose tables [P, n] are one row expanded over the positions, not copied.
    """
    every = torch.ones_like(student_ids, dtype=torch.bool)
    student_ids, teacher_ids, every = (table.expand(len(visited), -1) for table in (student_ids, teacher_ids, every))
    return Support(student_ids, teacher_ids, every, every, every, visited, mapper.to_teacher(visited))
