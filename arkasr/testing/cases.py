"""Cases to test losses with: a student, a teacher, and the support between their vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from arkasr.distributions.views import HeadView
from arkasr.interfaces import Support

POSITIONS, WIDTH, VOCAB, TOP = 7, 6, 24, 4


class TableView:
    """A teacher's view that returns values from a table.

    Args:
        table: Log-probabilities, float32 [P, V], in nats. -inf and NaN are allowed.
    """

    def __init__(self, table: Tensor):
        self.table, self.vocab_size = table, table.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """See `arkasr.DistributionView.topk`."""
        best = self.table.topk(min(k, self.vocab_size))
        return best.indices, best.values

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.DistributionView.logprobs_at`."""
        return self.table.gather(-1, ids)

    def entropy(self) -> None:
        """Return None, since the table need not hold the full distribution."""

    def at(self, rows: Tensor) -> TableView:
        """See `arkasr.DistributionView.at`."""
        return TableView(self.table[rows])


@dataclass
class Case:
    """The arguments of a loss at P positions.

    Attributes:
        states: The student's hidden states, float32 [P, H].
        weight: The weight of the student's output head, float32 [V, H].
        blocked: Student tokens that no transcript contains, bool [V].
        table: The teacher's log-probabilities, float32 [P, V_t], in nats.
        support: The support.
    """

    states: Tensor
    weight: Tensor
    blocked: Tensor
    table: Tensor
    support: Support

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return copies of `states`, `weight` and `table` that require a gradient."""
        states, weight, table = (t.detach().clone().requires_grad_() for t in (self.states, self.weight, self.table))
        return states, weight, table

    def at(self, rows: Tensor) -> Case:
        """Return the case at some positions only.

        Args:
            rows: The positions, int64 [Q].

        Returns:
            A case with Q positions.
        """
        support = map_support(self.support, lambda field: field[rows])
        return replace(self, states=self.states[rows], table=self.table[rows], support=support)


def map_support(support: Support, change: Callable[[Tensor], Tensor]) -> Support:
    """Return a support with every field replaced by a function of it.

    Args:
        support: Any support.
        change: The function.

    Returns:
        The new support.
    """
    return Support(**{item.name: change(getattr(support, item.name)) for item in fields(support)})


def padded(support: Support, before: int, after: int) -> Support:
    """Return a support with additional columns that are not valid.

    Args:
        support: Any support.
        before: Columns to add in front.
        after: Columns to add at the end.

    Returns:
        The new support.
    """
    return map_support(support, lambda field: pad(field, (before, after)) if field.dim() == 2 else field)


def emptied(support: Support) -> Support:
    """Return a support of the same width in which no token is valid.

    Args:
        support: Any support.

    Returns:
        The new support.
    """
    return map_support(support, lambda field: torch.zeros_like(field) if field.dim() == 2 else field)


def make_case(renaming: Tensor | None = None, self_teacher: bool = False, needs: str = "topk") -> Case:
    """Return a random case, the same for equal arguments.

    Some of the 7 positions are special:

    - Position -1: the teacher's best token is blocked for the student.
    - Position -2: the support has a single valid token (only for "topk").
    - Position -3: the teacher has no token for the transcript's token.

    Args:
        renaming: Teacher id of each student id, int64 [V], or None for equal ids.
        self_teacher: Use the student's distributions as the teacher's.
        needs: Kind of support: "topk" for the union of both top-k sets, "shared" for all tokens.

    Returns:
        The case.
    """
    generator = torch.Generator().manual_seed(7)
    states, weight = torch.randn(POSITIONS, WIDTH, generator=generator), torch.randn(VOCAB, WIDTH, generator=generator)
    logits = torch.randn(POSITIONS, VOCAB, generator=generator) * 2.0
    teacher_ids = torch.arange(VOCAB) if renaming is None else renaming
    blocked = torch.zeros(VOCAB, dtype=torch.bool)
    blocked[logits[-1].argmax()] = True
    log_p_s = HeadView(states, weight, blocked).dense().logits.log_softmax(-1)
    log_p_t = log_p_s if self_teacher else logits.log_softmax(-1)
    table = torch.full((POSITIONS, VOCAB), -torch.inf)
    table[:, teacher_ids] = log_p_t
    visited = log_p_s.argmax(-1)  # the transcript is greedy
    visited_teacher = teacher_ids[visited]
    visited_teacher[-3] = -1
    tables = _union_tables(log_p_t, log_p_s, teacher_ids) if needs == "topk" else _shared_tables(teacher_ids)
    return Case(states, weight, blocked, table, Support(*tables, visited, visited_teacher))


Tables = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # the first five fields of a Support


def _shared_tables(teacher_ids: Tensor) -> Tables:
    """Return tables [P, V] of all tokens: one row expanded over the positions."""
    ids_s, ids_t, every = (
        row.expand(POSITIONS, -1) for row in (torch.arange(VOCAB), teacher_ids, torch.ones(VOCAB, dtype=torch.bool))
    )
    return ids_s, ids_t, every, every, every


def _union_tables(log_p_t: Tensor, log_p_s: Tensor, teacher_ids: Tensor) -> Tables:
    """Return tables [P, 2k] of both top-k sets, the teacher's tokens first. Both arguments are in student ids."""
    top_t, top_s = log_p_t.topk(TOP).indices, log_p_s.topk(TOP).indices
    same = top_t[:, :, None] == top_s[:, None, :]
    ids, all_t, all_s = torch.cat([top_t, top_s], dim=1), torch.ones_like(top_t), torch.ones_like(top_s)
    valid = torch.cat([all_t.bool(), ~same.any(1)], dim=1)
    valid[-2, 1:] = False
    from_teacher = torch.cat([all_t, 0 * all_s], dim=1).bool() & valid
    from_student = torch.cat([same.any(2), all_s.bool()], dim=1) & valid
    return ids.where(valid, 0), teacher_ids[ids].where(valid, 0), valid, from_teacher, from_student
