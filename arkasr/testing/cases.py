"""Cases for losses: a student with gradient, a teacher, and the union support between their two vocabularies."""

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
    """A teacher that answers from a table of log-probabilities [P, V], which may hold -inf and NaN."""

    def __init__(self, table: Tensor):
        self.table, self.vocab_size = table, table.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        best = self.table.topk(min(k, self.vocab_size))
        return best.indices, best.values

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.table.gather(-1, ids)

    def entropy(self) -> None:
        """Say nothing: the table need not hold the whole distribution."""

    def at(self, rows: Tensor) -> TableView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        return TableView(self.table[rows])


@dataclass
class Case:
    """states [P, H] and weight [V, H] of the student's head; blocked: bool [V]; table: the teacher's [P, V_t]."""

    states: Tensor
    weight: Tensor
    blocked: Tensor
    table: Tensor
    support: Support

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return copies of states, weight and table that take a gradient."""
        return tuple(t.detach().clone().requires_grad_() for t in (self.states, self.weight, self.table))

    def at(self, rows: Tensor) -> Case:
        """Return the case of these positions only."""
        support = map_support(self.support, lambda field: field[rows])
        return replace(self, states=self.states[rows], table=self.table[rows], support=support)


def map_support(support: Support, change: Callable[[Tensor], Tensor]) -> Support:
    """Return a support with `change` applied to every field."""
    return Support(**{item.name: change(getattr(support, item.name)) for item in fields(support)})


def padded(support: Support, before: int, after: int) -> Support:
    """Return the support with columns more that are not valid."""
    return map_support(support, lambda field: pad(field, (before, after)) if field.dim() == 2 else field)


def emptied(support: Support) -> Support:
    """Return a support as wide, in which nothing is valid."""
    return map_support(support, lambda field: torch.zeros_like(field) if field.dim() == 2 else field)


def make_case(renaming: Tensor | None = None, self_teacher: bool = False, needs: str = "topk") -> Case:
    """Draw a case; equal arguments give equal numbers.

    Among the positions are odd ones: the transcript's token is none of the teacher's; of the union of the top k a
    single token is valid; one token is one that the student may never say. Student token i is teacher token
    renaming[i] (int64 [V]; None: i). self_teacher: the teacher's distributions are the student's. needs: what the
    loss needs, "topk", or "shared" for a support of all tokens.
    """
    draw = torch.Generator().manual_seed(7)
    states, weight = torch.randn(POSITIONS, WIDTH, generator=draw), torch.randn(VOCAB, WIDTH, generator=draw)
    logits = torch.randn(POSITIONS, VOCAB, generator=draw) * 2.0
    names = torch.arange(VOCAB) if renaming is None else renaming
    blocked = torch.zeros(VOCAB, dtype=torch.bool)
    blocked[logits[-1].argmax()] = True
    ours = HeadView(states, weight, blocked).dense().logits.log_softmax(-1)
    theirs = ours if self_teacher else logits.log_softmax(-1)
    table = torch.full((POSITIONS, VOCAB), -torch.inf)
    table[:, names] = theirs
    visited = ours.argmax(-1)  # a greedy transcript
    counterparts = names[visited]
    counterparts[-3] = -1
    tables = _union(theirs, ours, names) if needs == "topk" else _shared(names)
    return Case(states, weight, blocked, table, Support(*tables, visited, counterparts))


def _shared(names: Tensor) -> list[Tensor]:
    """Return the tables [P, V] of a Support in its order: all tokens, one row expanded."""
    every = torch.ones(VOCAB, dtype=torch.bool)
    return [row.expand(POSITIONS, -1) for row in (torch.arange(VOCAB), names, every, every, every)]


def _union(theirs: Tensor, ours: Tensor, names: Tensor) -> list[Tensor]:
    """Return the tables [P, U] of a Support in its order: both top k of [P, V], the teacher's part first."""
    top_t, top_s = theirs.topk(TOP).indices, ours.topk(TOP).indices
    same = top_t[:, :, None] == top_s[:, None, :]
    ids, all_t, all_s = torch.cat([top_t, top_s], dim=1), *map(torch.ones_like, (top_t, top_s))
    valid = torch.cat([all_t.bool(), ~same.any(1)], dim=1)
    valid[-2, 1:] = False
    from_teacher = torch.cat([all_t, 0 * all_s], dim=1).bool() & valid
    from_student = torch.cat([same.any(2), all_s.bool()], dim=1) & valid
    return [ids.where(valid, 0), names[ids].where(valid, 0), valid, from_teacher, from_student]
