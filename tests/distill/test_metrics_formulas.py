"""The diagnostics per position on worked examples: distributions over four tokens."""

from __future__ import annotations

from math import isfinite, log

import pytest
import torch

from arkasr.distill import metrics
from arkasr.distill.metrics import (
    PositionGroups,
    diagnostic_sums,
    overlap_advantage,
    position_groups,
    position_sums,
    probability_mass,
    support_kl,
)
from arkasr.distributions.views import DenseView, HeadView
from arkasr.interfaces import Support

# Two positions over tokens 0 to 3, where token 3 is the stop. The top-2 sets of teacher and student are
# {0, 1} and {0, 2} at the first position, {3, 0} and {3, 0} at the second.
P_S = torch.tensor([[0.6, 0.1, 0.2, 0.1], [0.5, 0.0, 0.1, 0.4]])
P_T = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.2, 0.1, 0.1, 0.6]])
STOP = torch.tensor([3])


def view(probs: torch.Tensor) -> DenseView:
    return DenseView(probs.log())


def support(visited=(0, 3)) -> Support:
    """Return the union support: tokens 0, 1, 2 at the first position, 3 and 0 at the second."""
    ids = torch.tensor([[0, 1, 2], [3, 0, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    teacher = torch.tensor([[True, True, False], [True, True, False]])
    student = torch.tensor([[True, False, True], [True, True, False]])
    visited_ids = torch.tensor(visited)
    return Support(ids, ids, valid, teacher, student, visited_ids, visited_ids)


def groups(stops=(False, True), languages=("English", "Chinese"), deciles=(0, 5)) -> PositionGroups:
    return PositionGroups(torch.tensor(deciles), list(languages), torch.tensor(stops))


def means(student=P_S, teacher=P_T, union=None, where=None, stop_ids=STOP) -> dict[str, float]:
    sums = position_sums(view(student), view(teacher), union or support(), where or groups(), stop_ids)
    return {
        name: float(value) / float(sums[name + "#"])
        for name, value in sums.items()
        if not name.endswith("#") and sums[name + "#"]
    }


def kl(p_t, p_s):
    p_t, p_s = ([x / sum(row) for x in row] for row in (p_t, p_s))
    return sum(x * log(x / y) for x, y in zip(p_t, p_s))


FIRST, SECOND = kl([0.5, 0.3, 0.1], [0.6, 0.1, 0.2]), kl([0.6, 0.2], [0.4, 0.5])


def test_kl_is_split_by_decile_language_and_correctness():
    result = means()
    assert result["kl/all"] == pytest.approx((FIRST + SECOND) / 2)
    assert (result["kl/decile_0"], result["kl/decile_5"]) == (pytest.approx(FIRST), pytest.approx(SECOND))
    assert {name for name in result if "decile" in name} == {"kl/decile_0", "kl/decile_5"}
    assert result["kl/language_English"] == pytest.approx(FIRST)
    assert result["kl/language_Chinese"] == pytest.approx(SECOND)
    assert result["kl/correct"] == result["kl/all"] and "kl/wrong" not in result and result["teacher_agreement"] == 1


def test_kl_wrong_collects_tokens_other_than_teacher_best():
    result = means(union=support(visited=(2, 3)))
    assert result["kl/wrong"] == pytest.approx(FIRST) and result["kl/correct"] == pytest.approx(SECOND)
    assert result["teacher_agreement"] == 0.5
    assert means(union=support(visited=(-1, 0)))["teacher_agreement"] == 0  # -1: the teacher has no such token


def test_overlap_advantage_is_divided_by_overlap_size():
    """One shared token yields 0. For two, the student's probabilities are 4/9 and 5/9, the teacher's 3/4 and 1/4."""
    expected = (4 / 9 * log((3 / 4) / (4 / 9)) + 5 / 9 * log((1 / 4) / (5 / 9))) / 2
    assert expected < -0.1 and means()["overlap_advantage"] == pytest.approx((0 + expected) / 2, abs=1e-6)
    none = overlap_advantage(P_S.log(), P_T.log(), torch.zeros(2, 4, dtype=torch.bool))
    assert none.tolist() == [0, 0]


def test_overlap_advantage_omits_positions_without_overlap():
    apart = support()
    apart.from_student[0, 0] = False
    expected = 2 * means()["overlap_advantage"]  # the first position added 0 to the sum and 1 to the count
    assert means(union=apart)["overlap_advantage"] == pytest.approx(expected)


def test_mass_on_support_and_overlap():
    result = means()
    assert result["mass/student_support"] == pytest.approx((0.9 + 0.9) / 2)
    assert result["mass/teacher_support"] == pytest.approx((0.9 + 0.8) / 2)
    assert result["mass/student_overlap"] == pytest.approx((0.6 + 0.9) / 2)
    assert result["mass/teacher_overlap"] == pytest.approx((0.5 + 0.8) / 2)


def entropy(row):
    return -sum(x * log(x) for x in row if x)


def test_entropy_and_entropy_gap():
    entropies_s, entropies_t = ([entropy(row) for row in t.tolist()] for t in (P_S, P_T))
    result = means()
    assert result["entropy/student"] == pytest.approx(sum(entropies_s) / 2)
    assert result["entropy/teacher"] == pytest.approx(sum(entropies_t) / 2)
    gaps = [abs(a - b) for a, b in zip(entropies_s, entropies_t)]
    assert result["entropy_gap"] == pytest.approx(sum(gaps) / 2) and gaps[0] > 0.05


def test_entropy_is_omitted_if_teacher_returns_none():
    teacher = view(P_T)
    teacher.entropy = lambda: None
    sums = position_sums(view(P_S), teacher, support(), groups(), STOP)
    assert "kl/all" in sums and not any("entropy" in name for name in sums)


def test_stop_early_and_late_on_worked_examples():
    """The teacher's stop probability is 0.1, then 0.6."""
    assert (means()["stop/early"], means()["stop/late"]) == (0, 0)
    swapped = means(where=groups(stops=(True, False)))
    assert (swapped["stop/early"], swapped["stop/late"]) == (1, 1)
    assert "stop/early" not in means(where=groups(stops=(False, False)))
    assert means(where=groups(stops=(False, False)))["stop/late"] == 0.5
    # The probabilities of two stops sum to 0.6 + 0.1 and 0.2 + 0.6.
    both = means(where=groups(stops=(True, False)), stop_ids=torch.tensor([0, 3]))
    assert (both["stop/early"], both["stop/late"]) == (0, 1)
    assert not any("stop" in name for name in means(stop_ids=STOP[:0]))


def test_unknown_teacher_values_are_excluded():
    teacher = P_T.clone()
    teacher[0, 1], teacher[1] = 0.0, torch.nan  # tokens 0 and 2 are known at the first position, none at the second
    result = means(teacher=teacher)
    assert result["kl/all"] == pytest.approx(kl([0.5, 0.1], [0.6, 0.2]), rel=1e-4)
    assert result["mass/student_support"] == pytest.approx((0.8 + 0) / 2)
    assert "stop/early" not in result and result["stop/late"] == 0  # the second position, a stop, is unknown
    assert "stop/late" not in means(teacher=teacher, where=groups(stops=(True, False)))
    assert all(isfinite(value) for value in result.values())


def test_equal_views_have_zero_divergence():
    result = means(student=P_T)
    zero = ("kl/all", "overlap_advantage", "entropy_gap")
    assert [result[name] for name in zero] == [pytest.approx(0, abs=1e-6)] * 3
    assert probability_mass(P_T.log(), torch.ones(2, 4, dtype=torch.bool)).tolist() == pytest.approx([1, 1])
    assert support_kl(P_S.log(), P_T.log(), torch.zeros(2, 4, dtype=torch.bool)).tolist() == [0, 0]


def test_position_groups_on_worked_example():
    result = position_groups([[5, 5, 5, 9], [9]], ["English", "Chinese"], torch.tensor([0, 1, 3, 4]), [9])
    assert result.deciles.tolist() == [0, 2, 7, 0]
    assert result.languages == ["English"] * 3 + ["Chinese"] and result.stops.tolist() == [False, False, True, True]


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_diagnostic_sums_cover_counted_positions_in_chunks(monkeypatch, chunk):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    order = [0, 1, 1, 0, 1]
    two = support()
    many = Support(*(getattr(two, name)[order] for name in two.__dataclass_fields__))
    many.valid[4, 1] = False  # a single valid token is not counted
    where = groups(stops=[row == 1 for row in order], languages=["a", "b", "b", "a", "b"], deciles=order)
    head = HeadView(P_S.clamp(min=1e-30).log()[order], torch.eye(4), torch.zeros(4, dtype=torch.bool))
    sums = diagnostic_sums(head, view(P_T[order]), many, where, STOP)
    assert sums["kl/all#"] == 4 and sums["kl/all"] == pytest.approx(2 * FIRST + 2 * SECOND)
    assert (sums["kl/language_a#"], sums["kl/language_b#"], sums["stop/early#"]) == (2, 2, 2)
    assert all(type(value) is float for value in sums.values())


def test_diagnostic_sums_without_counted_position_are_empty():
    none = support()
    none.valid[:] = False
    head = HeadView(P_S.log(), torch.eye(4), torch.zeros(4, dtype=torch.bool))
    assert diagnostic_sums(head, view(P_T), none, groups(), STOP) == {}
