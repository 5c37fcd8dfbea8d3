"""`check_loss` rejects losses that break one promise: a correct loss with one line changed."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from kit import PluginError, failure_message

from arkasr.distributions.views import HeadView
from arkasr.testing import TableView, check_loss, make_case
from arkasr.testing.cases import map_support
from arkasr.testing.slopes import wrong_slope


def good_loss(student, teacher, support, **broken):
    """Compute KL(p_T || p_S) on the support. Each keyword breaks one promise."""
    on = broken.get
    log_t = teacher.logprobs_at(support.student_ids if on("ids") else support.teacher_ids)
    log_t = log_t if on("attached") else log_t.detach()
    valid = support.valid if on("nan") else support.valid & ~log_t.isnan()
    valid = ~log_t.isnan() if on("columns") else valid
    if on("writes"):
        support.valid.fill_(True)
    counted = (valid & (log_t > -torch.inf)).sum(-1) >= 2
    if on("empty") and not counted.any():
        return torch.zeros(()), torch.zeros((), dtype=torch.long)
    if on("crash") and not len(log_t):
        raise PluginError("no positions")
    log_p_t = log_t.masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
    scores = student.scores_at(support.student_ids)
    scores = scores.detach() if on("constant") else scores
    scores = scores.bfloat16().float() if on("rounded") else scores
    log_p_s = scores.masked_fill(~valid, -torch.inf)[counted].log_softmax(-1)
    log_p_s = scores[counted] if on("raw") else log_p_s
    gap = log_p_t - log_p_s
    gap = gap if on("infinite") else torch.where((log_p_t > -torch.inf) & (log_p_s > -torch.inf), gap, 0.0)
    terms = (log_p_t.exp() * gap).sum(-1)
    terms = torch.where(gap == 0, gap, log_p_t - log_p_s).sum(-1) if on("signed") else terms
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


def test_check_loss_accepts_correct_loss():
    check_loss(good_loss)


def sampled(student, teacher, support):
    """Compute a policy-gradient loss on the transcript's tokens, which is not a divergence."""
    log_p_t = teacher.logprobs_at(support.visited_teacher.clamp(min=0)[:, None])[:, 0].detach()
    log_p_s = student.logprobs_at(support.visited_student[:, None])[:, 0]
    counted = (support.visited_teacher >= 0) & log_p_t.isfinite()
    return (log_p_s * torch.where(counted, log_p_s.detach() - log_p_t, 0.0)).sum(), counted.sum()


def test_check_loss_accepts_policy_gradient_without_divergence_checks():
    check_loss(sampled, divergence=False)


class OnAllTokens:
    """KL over the full distributions, as far as they are known."""

    needs = "shared"

    def __init__(self):
        self.supports = []

    def __call__(self, student, teacher, support):
        self.supports.append((tuple(support.valid.shape), bool(support.valid.all())))
        return good_loss(student, teacher, support)


def test_check_loss_passes_support_that_loss_needs():
    loss = OnAllTokens()
    check_loss(loss)
    assert loss.supports[0] == ((7, 24), True)
    loss.needs = "all"
    assert "needs is 'all'; it must be 'topk' or 'shared'" in failure_message(check_loss, loss)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("alone", r"returns float32 \[\]; it must return a tuple \(sum, count\)"),
        ("double", r"the sum is float64 \[\]"),
        ("vector", r"the sum is float32 \[\d\]"),
        ("float", "the count is float32"),
        ("int", "the count is an object of type int"),
        ("int32", r"the count is int32 \[\]; it must be int64"),
        ("half", r"computes in 16 bits \(float16 \[\]\)"),
        ("rounded", r"computes in 16 bits \(bfloat16 \[\d, \d\]\)"),
        ("ascent", r"gradient implies a slope of [\d.]+, but the sum has a slope of -"),
        ("scaled", "gradient implies a slope of"),
        ("many", "the count is 100 for 7 positions"),
        ("none", "over 0 counted positions; it must be 0"),
        ("constant", "the sum has no gradient"),
        ("nothing", "the student's gradient is 0"),
        ("mean", "do not add up"),
        ("offset", "no positions: the sum is 1 over 0 counted positions; it must be 0"),
        ("columns", "columns of the support that are not valid"),
        ("ids", "depends on how the teacher numbers its tokens"),
        ("attached", "the teacher gets a gradient"),
        ("writes", "changes the support"),
        ("infinite", "the sum is nan"),
        ("nan", "a teacher that returns nan for one token: "),
        ("empty", "no positions: the sum has no gradient"),
        ("crash", "no positions: the loss raises PluginError: no positions"),
        ("negative", "is -.* at positions where student and teacher differ; a divergence is at least 0"),
        ("signed", "is -.* at positions where student and teacher differ; a divergence is at least 0"),
        ("raw", "; a divergence is at least 0"),
    ],
)
def test_check_loss_rejects_broken_loss(name, sentence):
    assert re.search(sentence, failure_message(check_loss, broken(name)))


def without_head(student, teacher, support):
    """Detach the head."""
    return good_loss(HeadView(student.states, student.weight.detach(), student.blocked), teacher, support)


def weighted(student, teacher, support):
    """Weight each position by the student's largest probability, detached."""
    total = student.scores_at(support.student_ids).clamp(min=-9).sum() * 0
    for rows in torch.arange(len(support.valid))[:, None]:
        one, _ = good_loss(
            student.at(rows), teacher.at(rows), map_support(support, lambda field, rows=rows: field[rows])
        )
        total = total + one * student.at(rows).topk(1)[1].detach().exp().sum()
    return total, good_loss(student, teacher, support)[1]


@pytest.mark.parametrize("loss", [without_head, weighted])
def test_check_loss_rejects_incomplete_gradient(loss):
    """The missing part shows along the gradient itself and along random directions."""
    assert "divergence=False for a loss that detaches a part of itself" in failure_message(check_loss, loss)
    check_loss(loss, divergence=False)


def test_check_loss_accepts_piecewise_smooth_loss():
    """Clipped squared differences have a slope that jumps."""

    def clipped(student, teacher, support):
        total, count = good_loss(student, teacher, support)
        log_t = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & log_t.isfinite()
        rows = valid.sum(-1) >= 2
        p_t = log_t.masked_fill(~valid, -1e9)[rows].softmax(-1)
        p_s = student.scores_at(support.student_ids).masked_fill(~valid, -1e9)[rows].softmax(-1)
        return total * 0 + ((p_t - p_s) ** 2).clamp(max=0.02).sum(), count

    check_loss(clipped)


def test_wrong_slope_compares_gradient_with_finite_differences():
    point, value = [torch.tensor([3.0]), torch.tensor([-2.0])], lambda p: float(p[0] ** 2 + p[1] ** 3)
    assert wrong_slope(value, point, [torch.tensor([6.0]), torch.tensor([12.0])]) is None
    implied, measured = wrong_slope(value, point, [torch.tensor([-6.0]), torch.tensor([-12.0])])
    assert implied == pytest.approx(180**0.5, rel=1e-4) and measured == pytest.approx(-(180**0.5), rel=1e-2)
    assert wrong_slope(value, point, [torch.tensor([6.0]), torch.tensor([0.0])]) is not None


def test_check_loss_requires_zero_divergence_from_itself():
    """Cross-entropy is above 0 where the teacher equals the student, though its gradient is 0."""

    def cross_entropy(student, teacher, support):
        total, count = good_loss(student, teacher, support)
        log_t = teacher.logprobs_at(support.teacher_ids).detach()
        valid = support.valid & log_t.isfinite()
        rows = valid.sum(-1) >= 2
        log_p_t = log_t.masked_fill(~valid, -1e9)[rows].log_softmax(-1)
        return total - (log_p_t.exp() * log_p_t).sum(), count

    assert "where the teacher equals the student" in failure_message(check_loss, cross_entropy)
    check_loss(cross_entropy, divergence=False)


def test_make_case_contains_special_positions():
    case = make_case()
    support, sizes = case.support, case.support.valid.sum(-1)
    assert int(sizes[-2]) == 1 and int((support.visited_teacher == -1).sum()) == 1
    assert bool(case.blocked[support.student_ids[-1]].any())
    assert bool(((support.from_teacher | support.from_student) == support.valid).all())
    assert int(support.num_overlap.sum()) > 0 and int(sizes.max()) > int(sizes[0:5].min()) > 2


def test_table_view_returns_table_values():
    table = torch.tensor([[-1.0, -torch.inf, -2.0], [torch.nan, -1.0, -1.5]])
    view = TableView(table)
    assert view.entropy() is None and view.at(torch.tensor([1])).logprobs_at(torch.tensor([[2]])) == -1.5
    assert view.topk(9)[0][0].tolist() == [0, 2, 1]


def test_check_loss_rejects_object_that_is_no_loss():
    assert "cannot be called" in failure_message(check_loss, 3)
