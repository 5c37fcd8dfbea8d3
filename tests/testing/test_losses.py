"""Each check of a loss catches a loss that breaks one promise, a good one with a single line changed."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from kit import Loud, caught

from arkasr.distributions.views import HeadView
from arkasr.testing import TableView, check_loss, make_case
from arkasr.testing.cases import map_support
from arkasr.testing.slopes import wrong_slope


def good_loss(student, teacher, support, **broken):
    """KL(teacher || student) on the support, with one thing broken by name."""
    on = broken.get
    known = teacher.logprobs_at(support.student_ids if on("ids") else support.teacher_ids)
    known = known if on("attached") else known.detach()
    valid = support.valid if on("nan") else support.valid & ~known.isnan()
    valid = ~known.isnan() if on("columns") else valid
    if on("writes"):
        support.valid.fill_(True)
    counted = (valid & (known > -torch.inf)).sum(-1) >= 2
    if on("empty") and not counted.any():
        return torch.zeros(()), torch.zeros((), dtype=torch.long)
    if on("crash") and not len(known):
        raise Loud("no positions")
    p = known.masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
    scores = student.scores_at(support.student_ids)
    scores = scores.detach() if on("constant") else scores
    scores = scores.bfloat16().float() if on("rounded") else scores
    q = scores.masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
    q = scores[counted] if on("raw") else q
    gap = p - q if on("infinite") else torch.where((p > -torch.inf) & (q > -torch.inf), p - q, 0.0)
    terms = (p.exp() * gap).sum(-1)
    terms = torch.where(gap == 0, gap, p - q).sum(-1) if on("signed") else terms
    total = terms.sum()
    total = -total if on("negative") else total
    total = total / counted.sum().clamp(min=1) if on("mean") else total
    total = total + scores.clamp(min=-9).sum() * 0 + 1.0 if on("offset") else total
    total = total.double() if on("double") else total
    total = total.half().float() if on("half") else total
    total = 2 * total.detach() - total if on("ascent") else total
    total = total.detach() + 7 * (total - total.detach()) if on("scaled") else total
    total = terms if on("vector") else total
    total = (scores.clamp(min=-9) * 0).sum() if on("nothing") else total
    count = counted.sum() if not on("float") else counted.float().sum()
    count = int(count) if on("int") else count
    count = count.int() if on("int32") else count
    count = count * 0 + 100 if on("many") else count
    count = count * 0 if on("none") else count
    return total if on("alone") else (total, count)


def broken(*names):
    return partial(good_loss, **dict.fromkeys(names, True))


def test_a_good_loss_passes():
    check_loss(good_loss)


def sampled(student, teacher, support):
    """A policy gradient on the transcript's own tokens; no divergence."""
    theirs = teacher.logprobs_at(support.visited_teacher.clamp(min=0)[:, None])[:, 0].detach()
    ours = student.logprobs_at(support.visited_student[:, None])[:, 0]
    counted = (support.visited_teacher >= 0) & theirs.isfinite()
    return (ours * torch.where(counted, ours.detach() - theirs, 0.0)).sum(), counted.sum()


def test_a_loss_that_is_no_divergence_passes():
    check_loss(sampled, divergence=False)


class OnAllTokens:
    """KL over the whole distributions, where these are known."""

    needs = "shared"

    def __init__(self):
        self.seen = []

    def __call__(self, student, teacher, support):
        self.seen.append((tuple(support.valid.shape), bool(support.valid.all())))
        return good_loss(student, teacher, support)


def test_a_loss_gets_the_support_that_it_needs():
    loss = OnAllTokens()
    check_loss(loss)
    assert loss.seen[0] == ((7, 24), True)
    loss.needs = "all"
    assert "needs='all' must be 'topk' or 'shared'" in caught(check_loss, loss)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("alone", r"returns float32 \[\], not a sum and a count"),
        ("double", r"the sum is float64 \[\]"),
        ("vector", r"the sum is float32 \[\d\]"),
        ("float", "the count is float32"),
        ("int", "the count is a int"),
        ("int32", r"the count is int32 \[\], not int64"),
        ("half", r"computes in 16 bits \(float16 \[\]\)"),
        ("rounded", r"computes in 16 bits \(bfloat16 \[\d, \d\]\)"),
        ("ascent", "gradient tells a slope of [\\d.]+ where the sum has -"),
        ("scaled", "gradient tells a slope of"),
        ("many", "counts 100 of 7"),
        ("none", "over 0 counted positions; it must be 0"),
        ("constant", "the sum carries no gradient"),
        ("nothing", "gives the student no gradient"),
        ("mean", "do not add up"),
        ("offset", "no positions: the sum is 1 over 0 counted positions; it must be 0"),
        ("columns", "columns of the support that are not valid"),
        ("ids", "depends on token numbers"),
        ("attached", "gives the teacher a gradient"),
        ("writes", "writes into the support"),
        ("infinite", "the sum is nan"),
        ("nan", "a teacher that answers nan for one token: "),
        ("empty", "no positions: the sum carries no gradient"),
        ("crash", "no positions: the loss raises Loud: no positions"),
        ("negative", "is -.* at a position where student and teacher differ: no divergence"),
        ("signed", "is -.* at a position where student and teacher differ: no divergence"),
        ("raw", "no divergence"),
    ],
)
def test_a_broken_loss_is_caught(name, sentence):
    assert re.search(sentence, caught(check_loss, broken(name)))


def without_head(student, teacher, support):
    """Leaves the head untrained."""
    return good_loss(HeadView(student.states, student.weight.detach(), student.blocked), teacher, support)


def weighted(student, teacher, support):
    """Positions weigh by the student's best probability, held fixed."""
    total = student.scores_at(support.student_ids).clamp(min=-9).sum() * 0
    for rows in torch.arange(len(support.valid))[:, None]:
        one, _ = good_loss(
            student.at(rows), teacher.at(rows), map_support(support, lambda field, rows=rows: field[rows])
        )
        total = total + one * student.at(rows).topk(1)[1].detach().exp().sum()
    return total, good_loss(student, teacher, support)[1]


@pytest.mark.parametrize("loss", [without_head, weighted])
def test_a_gradient_that_lacks_a_part_is_caught(loss):
    """Along the gradient itself, and along what it leaves out."""
    assert "divergence=False) for a loss that holds a part of itself fixed" in caught(check_loss, loss)
    check_loss(loss, divergence=False)


def test_a_sum_with_kinks_passes():
    """Squared differences, each clipped: the slope jumps there."""

    def clipped(student, teacher, support):
        total, count = good_loss(student, teacher, support)
        known = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & known.isfinite()
        rows = valid.sum(-1) >= 2
        p = known.masked_fill(~valid, -1e9)[rows].softmax(-1)
        q = student.scores_at(support.student_ids).masked_fill(~valid, -1e9)[rows].softmax(-1)
        return total * 0 + ((p - q) ** 2).clamp(max=0.02).sum(), count

    check_loss(clipped)


def test_slopes_are_told_by_the_values():
    point, value = [torch.tensor([3.0]), torch.tensor([-2.0])], lambda p: float(p[0] ** 2 + p[1] ** 3)
    assert wrong_slope(value, point, [torch.tensor([6.0]), torch.tensor([12.0])]) is None
    given, found = wrong_slope(value, point, [torch.tensor([-6.0]), torch.tensor([-12.0])])
    assert given == pytest.approx(180**0.5, rel=1e-4) and found == pytest.approx(-(180**0.5), rel=1e-2)
    assert wrong_slope(value, point, [torch.tensor([6.0]), torch.tensor([0.0])]) is not None


def test_a_divergence_is_nothing_at_its_own_teacher():
    """Cross-entropy lacks the teacher's entropy: above 0 where the teacher is the student, but without gradient."""

    def cross_entropy(student, teacher, support):
        total, count = good_loss(student, teacher, support)
        known = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & known.isfinite()
        rows = valid.sum(-1) >= 2
        p = known.masked_fill(~valid, -1e9)[rows].log_softmax(-1)
        return total - (p.exp() * p).sum(), count

    assert "where the teacher is the student" in caught(check_loss, cross_entropy)
    check_loss(cross_entropy, divergence=False)


def test_the_case_holds_what_the_checks_speak_of():
    case = make_case()
    support, sizes = case.support, case.support.valid.sum(-1)
    assert int(sizes[-2]) == 1 and int((support.visited_teacher == -1).sum()) == 1
    assert bool(case.blocked[support.student_ids[-1]].any())
    assert bool(((support.from_teacher | support.from_student) == support.valid).all())
    assert int(support.num_overlap.sum()) > 0 and int(sizes.max()) > int(sizes[0:5].min()) > 2


def test_a_table_answers_as_it_is_written():
    table = torch.tensor([[-1.0, -torch.inf, -2.0], [torch.nan, -1.0, -1.5]])
    view = TableView(table)
    assert view.entropy() is None and view.at(torch.tensor([1])).logprobs_at(torch.tensor([[2]])) == -1.5
    assert view.topk(9)[0][0].tolist() == [0, 2, 1]


def test_what_is_no_loss_is_said_so():
    assert "cannot be called" in caught(check_loss, 3)
