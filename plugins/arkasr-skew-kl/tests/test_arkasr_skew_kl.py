"""The skewed KL passes the plugin check, equals its formula, and is bounded."""

from __future__ import annotations

import math

import pytest
import torch

from arkasr import DenseView, UserError
from arkasr.testing import TableView, check_loss, create, make_case


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "temperature": 2.0}, {"alpha": 0.999}])
def test_skew_kl_passes_plugin_check(options):
    check_loss(create("loss", "skew_kl", options))


def value(options, student=None):
    case = make_case()
    student = DenseView(case.states @ case.weight.T if student is None else student, case.blocked)
    return case, student, create("loss", "skew_kl", options)(student, TableView(case.table), case.support)


@pytest.mark.parametrize(("alpha", "tau"), [(0.1, 1.0), (0.7, 2.0)])
def test_skew_kl_matches_formula(alpha, tau):
    case, student, (total, count) = value({"alpha": alpha, "temperature": tau})
    expected, number = 0.0, 0
    for row, valid in enumerate(case.support.valid):
        if int(valid.sum()) < 2:
            continue
        p_t = (case.table[row, case.support.teacher_ids[row, valid]].double() / tau).softmax(0)
        p_s = (student.logits[row, case.support.student_ids[row, valid]].double() / tau).softmax(0)
        mixture = alpha * p_t + (1 - alpha) * p_s
        expected, number = expected + tau**2 * float((p_t * (p_t / mixture).log()).sum()), number + 1
    assert int(count) == number > 3 and float(total) == pytest.approx(expected, rel=1e-5)


def test_skew_kl_is_bounded_where_kl_is_not():
    case = make_case()
    far = 1000 * torch.randn(case.table.shape, generator=torch.Generator().manual_seed(0))
    _, _, (bounded, count) = value({"alpha": 0.1}, far)
    kl, _ = create("loss", "union_topk_kl", {})(DenseView(far), TableView(case.table), case.support)
    assert 0 < float(bounded) <= int(count) * math.log(10) + 1e-4 and float(kl) > 100 * float(bounded)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be greater than 0.*got 0.0"),
        ({"alpha": 1.0}, "alpha must be .*less than 1, got 1.0"),
        ({"temperature": 0.0}, "temperature must be positive.*got 0.0"),
        ({"beta": 0.5}, "unknown key beta"),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises(UserError, match=f"'skew_kl'.*{message}"):
        create("loss", "skew_kl", options)
