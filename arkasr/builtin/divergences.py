"""Outcomes that student and teacher are compared on, as log-probabilities, and the divergences between them.

Everything is float32 and over the last dimension. An outcome of -inf never happens. Views and supports: see
arkasr/interfaces.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

import arkasr

ROUNDING = 1e-6  # 1 less a sum of float32 probabilities carries errors of this size: a bucket found so holds no less


def outcomes(
    student: arkasr.StudentView,
    teacher: arkasr.DistributionView,
    support: arkasr.Support,
    chosen: Tensor,
    temperature: float = 1.0,
    tail: bool = False,
    zeros: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two sides' outcomes [Q, U] (tail: [Q, U + 1]) at the Q counted positions, and which: bool [P].

    chosen: bool [P, U], the tokens to compare. Of these, one that the teacher answers with NaN, or that the student may
    never say, is left out. Without a tail both sides are renormalised at the temperature over what is left, and counted
    are positions with two tokens or more to which the teacher gives mass; zeros: a token to which it gives none stays
    among what the student spreads over. With a tail both sides are true probabilities and a last outcome holds all
    other mass, that of the teacher's zeros and unknowns too; counted are positions with a token or more.
    """
    known = teacher.logprobs_at(support.teacher_ids).detach().float()
    happens = known > -torch.inf
    chosen = chosen & ~known.isnan() & (happens | (zeros and not tail))
    given, rest = (
        _given(student, support.student_ids, chosen) if tail else (student.scores_at(support.student_ids), None)
    )
    valid = chosen & ~given.isneginf()
    counted = (valid & happens).sum(-1) >= (1 if tail else 2)
    if not bool(counted.all()):  # else nothing is copied
        known, given, valid = known[counted], given[counted], valid[counted]
        rest = None if rest is None else rest[counted]
    if tail:
        return with_tail(known, valid), with_tail(given, valid, rest), counted
    return renormalised(known, valid, temperature), renormalised(given, valid, temperature), counted


def _given(student: arkasr.StudentView, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the student's log-probabilities [P, U] and, where its view tells, that of all but the valid ones [P, 1]."""
    if hasattr(student, "logprobs_and_rest"):
        return student.logprobs_and_rest(ids, valid)
    return student.logprobs_at(ids), None


def renormalised(scores: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return log softmax(scores / temperature) over the valid tokens; shapes [P, U]."""
    return (scores / temperature).masked_fill(~valid, -torch.inf).log_softmax(-1)


def with_tail(logprobs: Tensor, valid: Tensor, rest: Tensor | None = None) -> Tensor:
    """Return the valid log-probabilities and, last, that of everything else: [P, U] to [P, U + 1].

    rest: the latter [P, 1], where it is known better than as 1 less the others: a student that is surely wrong has a
    tail far below what rounding leaves, and a gradient there. One that cannot be is kept off by ROUNDING.
    """
    kept = logprobs.masked_fill(~valid, -torch.inf)
    if rest is None:
        rest = log1mexp(kept.logsumexp(-1, keepdim=True).clamp(max=-ROUNDING))
    return torch.cat([kept, rest.masked_fill(rest == -torch.inf, math.log(ROUNDING))], dim=-1)


def log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x < 0, by whichever form loses no digits (Maechler 2012)."""
    return torch.where(x > -0.6931472, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) a position: [P, U] to [P]; an outcome that either side never has adds nothing."""
    gap = (p - q).masked_fill((p == -torch.inf) | (q == -torch.inf), 0.0)
    return (p.exp() * gap).sum(-1)


def jsd(p: Tensor, q: Tensor, beta: float) -> Tensor:
    """Return beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q: [P, U] to [P].

    p and q must have their outcomes of -inf in common.
    """
    inside = (p != -torch.inf) & (q != -torch.inf)
    p, q = torch.where(inside, p, 0.0), torch.where(inside, q, 0.0)
    weights = torch.tensor([beta, 1 - beta], device=p.device).log()
    mixed = torch.logaddexp(p + weights[0], q + weights[1])
    return ((beta * p.exp() * (p - mixed) + (1 - beta) * q.exp() * (q - mixed)) * inside).sum(-1)


def position_by_position(
    divergence: Callable[[Tensor, Tensor], Tensor],
    student: arkasr.StudentView,
    teacher: arkasr.DistributionView,
    support: arkasr.Support,
) -> tuple[Tensor, Tensor]:
    """Sum divergence(teacher's, student's outcomes, with a tail) over the support's positions, and count them.

    A student's view that can be read in parts is: no more than a part's logits then exist at one time.
    """

    def part(view: arkasr.StudentView, rows: Tensor) -> tuple[Tensor, Tensor]:
        start = int(rows[0]) if len(rows) else 0
        tables = {item.name: getattr(support, item.name)[start : start + len(rows)] for item in fields(support)}
        some = replace(support, **tables)
        theirs, ours, counted = outcomes(view, teacher.at(rows), some, some.valid, tail=True)
        return divergence(theirs, ours).sum(), counted.sum()

    rows = torch.arange(len(support.valid))
    return student.sum_in_parts(part, rows) if hasattr(student, "sum_in_parts") else part(student, rows)
