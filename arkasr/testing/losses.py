"""Does an object keep what `arkasr.Loss` promises? Legend: see arkasr/interfaces.py."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from arkasr.distributions.views import DenseView, HeadView
from arkasr.interfaces import Loss, Support
from arkasr.testing.cases import POSITIONS, VOCAB, Case, TableView, emptied, make_case, map_support, padded
from arkasr.testing.require import attempt, described, distance, is_tensor, requirer
from arkasr.testing.slopes import wrong_slope

require = requirer("check_loss")
TOLERANCE = 1e-4


@dataclass
class _Result:
    """What a loss gave: its sum and count, and the gradients of states and head."""

    total: Tensor
    count: int
    states: Tensor
    weight: Tensor

    def differs(self, other: _Result) -> bool:
        pairs = zip((self.total, self.states, self.weight), (other.total, other.states, other.weight))
        return self.count != other.count or any(distance(a, b) > TOLERANCE for a, b in pairs)


class _Wide(TorchFunctionMode):
    """Refuses what comes out in 16 bits: 3 digits of a sum over thousands of positions, whose count is exact."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        narrow = isinstance(made, Tensor) and made.dtype in (torch.float16, torch.bfloat16)
        require(not narrow, f"computes in 16 bits ({described(made)}); compute in float32, as what it is given is")
        return made


def check_loss(loss: Loss, divergence: bool = True) -> None:
    """Check that a loss keeps the promises of `arkasr.Loss`; raises AssertionError for the first that it breaks.

    Checked are a finite float32 sum with gradient to the student and none to the teacher, an int64 count, that nothing
    is computed in 16 bits, additivity over any split of the positions, independence of columns that are not valid and
    of how the teacher numbers its tokens, and that everything odd is defined, forwards and backwards: no positions, an
    empty support, a token that the student may never say, and -inf and NaN from the teacher, for one token or a whole
    row. The support is what the loss `needs`. divergence: it is a divergence: at least 0, and 0 with no gradient where
    the teacher is the student, its gradient being that of its sum; False for a policy gradient and the like, and for
    a loss that holds a part of itself fixed (detached).
    """
    require(isinstance(loss, Loss), f"{described(loss)} cannot be called with student, teacher and support")
    needs = getattr(loss, "needs", "topk")
    require(needs in ("topk", "shared"), f"needs={needs!r} must be 'topk' or 'shared'")
    names = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(1))
    case = make_case(names, needs=needs)
    whole = _run(loss, case, "an ordinary case")
    require(whole.count > 0, f"counts none of {POSITIONS} ordinary positions")
    require(float(whole.states.abs().max()) > 0, "gives the student no gradient")
    _check_odd(loss, case)
    _check_splits(loss, case, whole)
    for before, after in ((0, 2), (3, 1)):
        wide = replace(case, support=padded(case.support, before, after))
        again = _run(loss, wide, "a support with more columns that are not valid")
        require(not whole.differs(again), "depends on columns of the support that are not valid")
    same = _run(loss, make_case(needs=needs), "a teacher with the student's ids")
    asked = "ask the teacher for support.teacher_ids only, and the student for support.student_ids"
    require(not whole.differs(same), f"depends on token numbers: {asked}")
    if divergence:
        _check_divergence(loss, case, make_case(names, self_teacher=True, needs=needs))
        _check_gradient(loss, case, whole)


def _run(loss: Loss, case: Case, what: str, view: type = DenseView) -> _Result:
    """Run a loss forwards and backwards, and see that the result is well-formed and its arguments are intact."""
    states, weight, table = case.leaves()
    support = map_support(case.support, torch.clone)
    with attempt("check_loss", f"{what}: the loss"), _Wide():
        made = loss(HeadView(states, weight, case.blocked), view(table), support)
    require(isinstance(made, tuple) and len(made) == 2, f"returns {described(made)}, not a sum and a count")
    total, count = _well_formed(*made, what, len(states))
    intact = all(torch.equal(getattr(support, f.name), getattr(case.support, f.name)) for f in fields(Support))
    require(intact, f"{what}: writes into the support that it is given")
    with attempt("check_loss", f"{what}: backward"):
        total.backward()
    require(table.grad is None, f"{what}: gives the teacher a gradient; detach what it answers")
    require(states.grad is not None, f"{what}: no gradient path to the student; a rank with such a batch would hang")
    grads = [states.grad, torch.zeros_like(weight) if weight.grad is None else weight.grad]
    require(all(bool(g.isfinite().all()) for g in grads), f"{what}: the gradient is not finite")
    return _Result(total.detach(), count, *grads)


def _well_formed(total: Any, count: Any, what: str, positions: int) -> tuple[Tensor, int]:
    require(is_tensor(total, torch.float32), f"{what}: the sum is {described(total)}, not float32 []")
    require(is_tensor(count, torch.int64), f"{what}: the count is {described(count)}, not int64 []")
    require(bool(total.isfinite()), f"{what}: the sum is {float(total.detach())}")
    require(total.requires_grad, f"{what}: the sum carries no gradient; a rank with such a batch would hang")
    number = int(count)
    require(0 <= number <= positions, f"{what}: counts {number} of {positions} positions")
    none = number > 0 or float(total.detach()) == 0.0
    require(none, f"{what}: the sum is {float(total.detach()):.4g} over 0 counted positions; it must be 0")
    return total, number


def _check_splits(loss: Loss, case: Case, whole: _Result) -> None:
    """The caller divides by the global count, so sums, counts and gradients of the parts add up to the whole's."""
    for cuts in ((0, 3, POSITIONS), tuple(range(POSITIONS + 1)), (0, 0, POSITIONS)):
        rows = [torch.arange(a, b) for a, b in pairwise(cuts)]
        parts = [_run(loss, case.at(some), f"{len(some)} of {POSITIONS} positions") for some in rows]
        total = torch.stack([part.total for part in parts]).sum()
        weight = torch.stack([part.weight for part in parts]).sum(0)
        joined = _Result(total, sum(p.count for p in parts), torch.cat([p.states for p in parts]), weight)
        mend = "return a sum over positions, not a mean, and let no position see another"
        require(not whole.differs(joined), f"the parts of a batch do not add up to the whole: {mend}")


def _check_odd(loss: Loss, case: Case) -> None:
    """What goes wrong on one rank of many, sooner or later."""
    none = _run(loss, case.at(torch.arange(0)), "no positions")
    require(none.count == 0, "counts positions where there are none")
    _run(loss, replace(case, support=emptied(case.support)), "a support without a valid token")
    first = int(case.support.teacher_ids[0, 0])
    for value in (-torch.inf, torch.nan):
        for what, place in (("one token", (0, first)), ("a whole row", (0,)), ("every row", ())):
            table = case.table.clone()
            table[place] = value
            _run(loss, replace(case, table=table), f"a teacher that answers {value} for {what}", TableView)


def _check_divergence(loss: Loss, case: Case, own_teacher: Case) -> None:
    totals = [_run(loss, case.at(torch.tensor([row])), "a single position").total for row in range(POSITIONS)]
    least = float(min(totals))
    said = f"is {least:.4g} at a position where student and teacher differ: no divergence"
    good = least > -TOLERANCE and float(max(totals)) > 0
    require(good, f"{said} (check_loss(loss, divergence=False) for a loss that is none)")
    same = _run(loss, own_teacher, "a teacher that is the student")
    total, slope = float(same.total), float(same.states.abs().max())
    said = f"is {total:.4g}, with a gradient up to {slope:.4g}, where the teacher is the student"
    require(max(abs(total), slope) <= TOLERANCE, f"{said}: a divergence is 0 there")


def _check_gradient(loss: Loss, case: Case, whole: _Result) -> None:
    """Optimisers see the gradient alone: one that is turned, scaled or cut off trains something else than the sum."""

    def value(point: list[Tensor]) -> float:
        return float(_run(loss, replace(case, states=point[0], weight=point[1]), "a student moved a little").total)

    wrong = wrong_slope(value, [case.states, case.weight], [whole.states, whole.weight])
    if wrong is not None:
        said = f"its gradient tells a slope of {wrong[0]:.4g} where the sum has {wrong[1]:.4g}"
        require(False, f"{said} (check_loss(loss, divergence=False) for a loss that holds a part of itself fixed)")
