"""Check that an object conforms to `arkasr.Loss`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from arkasr.distributions.views import DenseView, HeadView
from arkasr.interfaces import DistributionView, Loss, Support
from arkasr.testing.cases import POSITIONS, VOCAB, Case, TableView, emptied, make_case, map_support, padded
from arkasr.testing.require import attempt, describe, distance, is_tensor, requirer
from arkasr.testing.slopes import wrong_slope

require = requirer("check_loss")
TOLERANCE = 1e-4
NO_PATH = "it must depend on the student, even as a zero, or other ranks hang in the backward pass"


@dataclass
class _Result:
    """Sum and count that a loss returned, and the gradients of the student's states and head."""

    total: Tensor
    count: int
    states: Tensor
    weight: Tensor

    def differs(self, other: _Result) -> bool:
        pairs = zip((self.total, self.states, self.weight), (other.total, other.states, other.weight))
        return self.count != other.count or any(distance(a, b) > TOLERANCE for a, b in pairs)


class _RequireFloat32(TorchFunctionMode):
    """Fails the check if an operation returns 16 bits, which have 3 digits for a sum over thousands of positions."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        narrow = isinstance(result, Tensor) and result.dtype in (torch.float16, torch.bfloat16)
        require(not narrow, f"computes in 16 bits ({describe(result)}); it must compute in float32, as its arguments")
        return result


def check_loss(loss: Loss, divergence: bool = True) -> None:
    """Check that a loss conforms to `arkasr.Loss`, with the kind of support that its attribute `needs` asks for.

    The check covers:

    - The sum is finite, float32 and not computed in 16 bits. The count is int64.
    - The gradient reaches the student and not the teacher.
    - Sums and counts add up over any split of the positions.
    - Columns that are not valid and the teacher's numbering of tokens have no influence.
    - Sum and gradient are finite, also for: no positions, an empty support, a token that is blocked for the student,
      and -inf or NaN from the teacher for one token, one row or all rows.
    - With `divergence`: The value is at least 0. Value and gradient are 0 if the teacher equals the student. The
      gradient equals finite differences of the sum.

    Args:
        loss: The loss.
        divergence: Set it to False for a loss that is not a divergence, such as a policy gradient, or that detaches a
            part of itself.

    Raises:
        AssertionError: The first promise that the loss breaks.
    """
    require(isinstance(loss, Loss), f"{describe(loss)} cannot be called with student, teacher and support")
    needs = getattr(loss, "needs", "topk")
    require(needs in ("topk", "shared"), f"attribute needs is {needs!r}; it must be 'topk' or 'shared'")
    names = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))
    case = make_case(names, needs=needs)
    whole = _run(loss, case, "an ordinary case")
    require(whole.count > 0, f"counts 0 of {POSITIONS} ordinary positions; it must count at least one")
    require(float(whole.states.abs().max()) > 0, "the student's gradient is 0 in an ordinary case; it must not be")
    _check_special_cases(loss, case)
    _check_splits(loss, case, whole)
    for before, after in ((0, 2), (3, 1)):
        wide = replace(case, support=padded(case.support, before, after))
        again = _run(loss, wide, "a support with additional columns that are not valid")
        require(not whole.differs(again), "depends on columns of the support that are not valid; it must ignore them")
    same_ids = _run(loss, make_case(needs=needs), "a teacher with the student's ids")
    rule = "use support.teacher_ids for the teacher and support.student_ids for the student"
    require(not whole.differs(same_ids), f"depends on how the teacher numbers its tokens; {rule}")
    if divergence:
        _check_divergence(loss, case, make_case(names, self_teacher=True, needs=needs))
        _check_gradient(loss, case, whole)


def _run(loss: Loss, case: Case, what: str, view: Callable[[Tensor], DistributionView] = DenseView) -> _Result:
    """Run a loss and its backward pass, and check that the result is well-formed and the arguments are unchanged."""
    states, weight, table = case.leaves()
    support = map_support(case.support, torch.clone)
    with attempt("check_loss", f"{what}: the loss"), _RequireFloat32():
        result = loss(HeadView(states, weight, case.blocked), view(table), support)
    is_pair = isinstance(result, tuple) and len(result) == 2
    require(is_pair, f"returns {describe(result)}; it must return a tuple (sum, count)")
    total, count = _well_formed(*result, what, len(states))
    unchanged = all(torch.equal(getattr(support, f.name), getattr(case.support, f.name)) for f in fields(Support))
    require(unchanged, f"{what}: changes the support; it must leave its arguments unchanged")
    with attempt("check_loss", f"{what}: backward"):
        total.backward()
    require(table.grad is None, f"{what}: the teacher gets a gradient; detach the teacher's values")
    require(states.grad is not None, f"{what}: the sum does not depend on the student; {NO_PATH}")
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (states, weight)]
    finite = all(bool(g.isfinite().all()) for g in grads)
    require(finite, f"{what}: the student's gradient is not finite; it must be")
    return _Result(total.detach(), count, *grads)


def _well_formed(total: Any, count: Any, what: str, positions: int) -> tuple[Tensor, int]:
    """Check dtypes, shapes and ranges of sum and count, and return the sum and the count as int."""
    require(is_tensor(total, torch.float32), f"{what}: the sum is {describe(total)}; it must be float32 []")
    require(is_tensor(count, torch.int64), f"{what}: the count is {describe(count)}; it must be int64 []")
    value, number = float(total.detach()), int(count)
    require(bool(total.isfinite()), f"{what}: the sum is {value}; it must be finite")
    require(total.requires_grad, f"{what}: the sum has no gradient; {NO_PATH}")
    wrong = f"the count is {number} for {positions} positions; it must be from 0 to {positions}"
    require(0 <= number <= positions, f"{what}: {wrong}")
    empty = f"the sum is {value:.4g} over 0 counted positions; it must be 0"
    require(number > 0 or value == 0.0, f"{what}: {empty}")
    return total, number


def _check_splits(loss: Loss, case: Case, whole: _Result) -> None:
    """Check that sums, counts and gradients of parts add up, since the caller divides by the global count."""
    for cuts in ((0, 3, POSITIONS), tuple(range(POSITIONS + 1)), (0, 0, POSITIONS)):
        rows = [torch.arange(a, b) for a, b in pairwise(cuts)]
        parts = [_run(loss, case.at(some), f"{len(some)} of {POSITIONS} positions") for some in rows]
        total = torch.stack([part.total for part in parts]).sum()
        weight = torch.stack([part.weight for part in parts]).sum(0)
        joined = _Result(total, sum(p.count for p in parts), torch.cat([p.states for p in parts]), weight)
        rule = "return a sum over positions, not a mean, and let no position depend on another"
        require(not whole.differs(joined), f"the parts of a batch do not add up to the whole batch; {rule}")


def _check_special_cases(loss: Loss, case: Case) -> None:
    """Check cases that occur on single ranks: nothing to count, and values that the teacher does not have."""
    none = _run(loss, case.at(torch.arange(0)), "no positions")
    require(none.count == 0, f"the count is {none.count} for no positions; it must be 0")
    _run(loss, replace(case, support=emptied(case.support)), "a support without a valid token")
    first = int(case.support.teacher_ids[0, 0])
    places: dict[str, tuple[int, ...]] = {"one token": (0, first), "one row": (0,), "every row": ()}
    for value in (-torch.inf, torch.nan):
        for what, place in places.items():
            table = case.table.clone()
            table[place] = value
            _run(loss, replace(case, table=table), f"a teacher that returns {value} for {what}", TableView)


def _check_divergence(loss: Loss, case: Case, own_teacher: Case) -> None:
    """Check the sign of the value, and that value and gradient are 0 if the teacher equals the student."""
    totals = [_run(loss, case.at(torch.tensor([row])), "a single position").total for row in range(POSITIONS)]
    least, most = float(min(totals)), float(max(totals))
    values = f"is {least:.4g} to {most:.4g} at positions where student and teacher differ"
    rule = "a divergence is at least 0, and not 0 everywhere (pass divergence=False for other losses)"
    require(least > -TOLERANCE and most > 0, f"{values}; {rule}")
    same = _run(loss, own_teacher, "a teacher that equals the student")
    total, slope = float(same.total), float(same.states.abs().max())
    values = f"is {total:.4g}, with a gradient up to {slope:.4g}, where the teacher equals the student"
    require(max(abs(total), slope) <= TOLERANCE, f"{values}; both must be 0 for a divergence")


def _check_gradient(loss: Loss, case: Case, whole: _Result) -> None:
    """Check the gradient by finite differences: with a wrong one the optimizer minimises something else."""

    def value(point: list[Tensor]) -> float:
        moved = replace(case, states=point[0], weight=point[1])
        return float(_run(loss, moved, "a student moved a little").total)

    wrong = wrong_slope(value, [case.states, case.weight], [whole.states, whole.weight])
    if wrong is not None:
        slopes = f"the gradient implies a slope of {wrong[0]:.4g}, but the sum has a slope of {wrong[1]:.4g}"
        rule = "both must be equal (pass divergence=False for a loss that detaches a part of itself)"
        require(False, f"{slopes}; {rule}")
