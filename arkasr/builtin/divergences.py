"""The outcomes on which student and teacher are compared, and the divergences between them.

Outcomes are tokens of a support, and optionally one more outcome for the mass of all other tokens. They are held as
log-probabilities, float32, along the last dimension. A log-probability of -inf means that the outcome is impossible.
Notation: p_T is the teacher's and p_S the student's distribution. For views and supports see `arkasr/interfaces.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

import arkasr

ROUNDING = 1e-6  # rounding error of 1 minus a sum of float32 probabilities. A tail computed so is at least this


def outcomes(
    student: arkasr.StudentView,
    teacher: arkasr.DistributionView,
    support: arkasr.Support,
    chosen: Tensor,
    temperature: float = 1.0,
    tail: bool = False,
    zeros: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the log-probabilities of both sides' outcomes at the counted positions.

    Tokens that the teacher answers with NaN, and tokens that the student must not write, are left out.

    - Without `tail`, both sides are renormalised over the remaining tokens at the given temperature. A position counts
      if the teacher gives mass to at least two of them.
    - With `tail`, both sides are true probabilities, and a last outcome holds the mass of all other tokens. This
      includes the tokens that the teacher does not know or gives probability 0. A position counts if one token remains.

    Args:
        student: Student's view of P positions.
        teacher: Teacher's view of P positions.
        support: The support at the P positions, U tokens wide.
        chosen: Tensor [P, U], bool, the tokens of the support to compare.
        temperature: tau. Both sides' scores are divided by it. It has no effect with `tail`.
        tail: Whether to add the outcome of all other tokens.
        zeros: Whether tokens with teacher probability 0 stay in the student's softmax. It has no effect with `tail`.

    Returns:
        Log-probabilities of the teacher (detached) and of the student, float32 [P, U], or [P, U + 1] with `tail`.
        Third, the mask of counted positions, bool [P]. Rows of other positions may be NaN: `masked_sum` omits them.
    """
    log_p_t = teacher.logprobs_at(support.teacher_ids).detach().float()
    possible = log_p_t > -torch.inf
    chosen = chosen & ~log_p_t.isnan() & (possible | (zeros and not tail))
    scores, rest = (
        _logprobs_and_rest(student, support.student_ids, chosen)
        if tail
        else (student.scores_at(support.student_ids), None)
    )
    valid = chosen & ~scores.isneginf()
    counted = (valid & possible).sum(-1) >= (1 if tail else 2)
    valid = valid & counted[:, None]  # no gradient reaches the student's scores of other positions, not even NaN
    if tail:
        return with_tail(log_p_t, valid), with_tail(scores, valid, rest), counted
    return renormalised(log_p_t, valid, temperature), renormalised(scores, valid, temperature), counted


def masked_sum(values: Tensor, counted: Tensor) -> Tensor:
    """Return the sum over the counted positions.

    No rows are selected, because the host would have to wait for their number.

    Args:
        values: Tensor [P], one number per position.
        counted: Tensor [P], bool.

    Returns:
        Scalar.
    """
    return values.where(counted, 0.0).sum()


def _logprobs_and_rest(student: arkasr.StudentView, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the student's log-probabilities [P, U] and, if its view supports this, that of all other tokens [P, 1]."""
    if hasattr(student, "logprobs_and_rest"):
        return student.logprobs_and_rest(ids, valid)
    return student.logprobs_at(ids), None


def renormalised(scores: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return log softmax(scores / temperature) over the valid tokens.

    Args:
        scores: Tensor [P, U], logits or log-probabilities.
        valid: Tensor [P, U], bool.
        temperature: tau.

    Returns:
        Tensor [P, U], log-probabilities, -inf where not valid.
    """
    return (scores / temperature).masked_fill(~valid, -torch.inf).log_softmax(-1)


def with_tail(logprobs: Tensor, valid: Tensor, rest: Tensor | None = None) -> Tensor:
    """Append the log-probability of all other tokens as the last outcome.

    Without `rest`, it is 1 minus the sum of the valid probabilities, but at least ROUNDING. A given `rest` may be far
    smaller than that and has an exact gradient, which matters for a student that is confident in a wrong token.

    Args:
        logprobs: Tensor [P, U], true log-probabilities.
        valid: Tensor [P, U], bool, the tokens that are outcomes of their own.
        rest: Tensor [P, 1], the log-probability of all other tokens. None if it is not known.

    Returns:
        Tensor [P, U + 1], log-probabilities, -inf where not valid.
    """
    kept = logprobs.masked_fill(~valid, -torch.inf)
    if rest is None:
        rest = log1mexp(kept.logsumexp(-1, keepdim=True).clamp(max=-ROUNDING))
    return torch.cat([kept, rest.masked_fill(rest == -torch.inf, math.log(ROUNDING))], dim=-1)


def log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) with the more accurate of two formulas (Maechler 2012).

    Args:
        x: Tensor of any shape, negative numbers.

    Returns:
        Tensor of the same shape.
    """
    return torch.where(x > -0.6931472, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))


def kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return KL(a || b) per position. Outcomes that are impossible on either side add nothing.

    Args:
        log_a: Tensor [P, U], log-probabilities.
        log_b: Tensor [P, U], log-probabilities.

    Returns:
        Tensor [P], nats.
    """
    gap = (log_a - log_b).masked_fill((log_a == -torch.inf) | (log_b == -torch.inf), 0.0)
    return (log_a.exp() * gap).sum(-1)


def jsd(log_p_t: Tensor, log_p_s: Tensor, beta: float) -> Tensor:
    """Return beta KL(p_T || m) + (1 - beta) KL(p_S || m) with m = beta p_T + (1 - beta) p_S, per position.

    Args:
        log_p_t: Tensor [P, U], the teacher's log-probabilities.
        log_p_s: Tensor [P, U], the student's, -inf at the same outcomes.
        beta: Weight of the teacher in the mixture m.

    Returns:
        Tensor [P], nats.
    """
    inside = (log_p_t != -torch.inf) & (log_p_s != -torch.inf)
    log_p_t, log_p_s = torch.where(inside, log_p_t, 0.0), torch.where(inside, log_p_s, 0.0)
    log_m = torch.logaddexp(log_p_t + math.log(beta), log_p_s + math.log(1 - beta))
    terms = beta * log_p_t.exp() * (log_p_t - log_m) + (1 - beta) * log_p_s.exp() * (log_p_s - log_m)
    return (terms * inside).sum(-1)


def sum_over_positions(
    divergence: Callable[[Tensor, Tensor], Tensor],
    student: arkasr.StudentView,
    teacher: arkasr.DistributionView,
    support: arkasr.Support,
) -> tuple[Tensor, Tensor]:
    """Sum a divergence with tail over the positions of a support, and count the positions.

    If the student's view has `sum_in_parts`, the logits of only a few positions exist at one time.

    Args:
        divergence: Function of the teacher's and the student's outcomes [P, U + 1] that returns one number per
            position [P].
        student: Student's view of P positions.
        teacher: Teacher's view of P positions.
        support: The support at the P positions.

    Returns:
        The sum (float32 scalar, with gradient to the student) and the number of counted positions (int64 scalar).
    """

    def part(view: arkasr.StudentView, rows: Tensor) -> tuple[Tensor, Tensor]:
        start = int(rows[0]) if len(rows) else 0  # the rows are on the host
        tables = {item.name: getattr(support, item.name)[start : start + len(rows)] for item in fields(support)}
        part_support = replace(support, **tables)
        log_p_t, log_p_s, counted = outcomes(view, teacher.at(rows), part_support, part_support.valid, tail=True)
        return masked_sum(divergence(log_p_t, log_p_s), counted), counted.sum()

    rows = torch.arange(len(support.valid))
    return student.sum_in_parts(part, rows) if hasattr(student, "sum_in_parts") else part(student, rows)
