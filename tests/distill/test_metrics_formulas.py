"""What is measured a position, on distributions over four tokens worked by hand."""

from __future__ import annotations

from math import isfinite, log

import pytest
import torch

from arkasr.distill import metrics
from arkasr.distill.metrics import Places, mass, measure, overlap_advantage, places, position_sums, support_kl
from arkasr.distributions.views import DenseView, HeadView
from arkasr.interfaces import Support

# Two positions over tokens 0 to 3; token 3 is the stop. The top 2 of both: {0, 1} and {0, 2}, then {3, 0} and {3, 0}.
P = torch.tensor([[0.6, 0.1, 0.2, 0.1], [0.5, 0.0, 0.1, 0.4]])
Q = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.2, 0.1, 0.1, 0.6]])
STOP = torch.tensor([3])


def view(probs: torch.Tensor) -> DenseView:
    return DenseView(probs.log())


def support(visited=(0, 3)) -> Support:
    """The union: tokens 0, 1, 2 at the first position, 3 and 0 at the second."""
    ids = torch.tensor([[0, 1, 2], [3, 0, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    teacher = torch.tensor([[True, True, False], [True, True, False]])
    student = torch.tensor([[True, False, True], [True, True, False]])
    seen = torch.tensor(visited)
    return Support(ids, ids, valid, teacher, student, seen, seen)


def at(stops=(False, True), languages=("English", "Chinese"), deciles=(0, 5)) -> Places:
    return Places(torch.tensor(deciles), list(languages), torch.tensor(stops))


def means(student=P, teacher=Q, compared=None, where=None, stop_ids=STOP) -> dict[str, float]:
    sums = position_sums(view(student), view(teacher), compared or support(), where or at(), stop_ids)
    return {
        name: float(value) / float(sums[name + "#"])
        for name, value in sums.items()
        if not name.endswith("#") and sums[name + "#"]
    }


def kl(q, p):
    q, p = ([x / sum(row) for x in row] for row in (q, p))
    return sum(x * log(x / y) for x, y in zip(q, p))


FIRST, SECOND = kl([0.5, 0.3, 0.1], [0.6, 0.1, 0.2]), kl([0.6, 0.2], [0.4, 0.5])


def test_the_kl_is_that_of_the_support_and_is_parted():
    made = means()
    assert made["kl/all"] == pytest.approx((FIRST + SECOND) / 2)
    assert (made["kl/decile_0"], made["kl/decile_5"]) == (pytest.approx(FIRST), pytest.approx(SECOND))
    assert {name for name in made if "decile" in name} == {"kl/decile_0", "kl/decile_5"}
    assert made["kl/language_English"] == pytest.approx(FIRST)
    assert made["kl/language_Chinese"] == pytest.approx(SECOND)
    assert made["kl/correct"] == made["kl/all"] and "kl/wrong" not in made and made["teacher_agreement"] == 1


def test_a_token_that_is_not_the_teachers_best_is_wrong():
    made = means(compared=support(visited=(2, 3)))
    assert made["kl/wrong"] == pytest.approx(FIRST) and made["kl/correct"] == pytest.approx(SECOND)
    assert made["teacher_agreement"] == 0.5
    assert means(compared=support(visited=(-1, 0)))["teacher_agreement"] == 0  # -1: the teacher has no such token


def test_the_advantage_is_over_the_overlap_and_divided_by_its_size():
    """One token in common says nothing; of two the student gives 4/9 and 5/9, the teacher 3/4 and 1/4."""
    expected = (4 / 9 * log((3 / 4) / (4 / 9)) + 5 / 9 * log((1 / 4) / (5 / 9))) / 2
    assert expected < -0.1 and means()["overlap_advantage"] == pytest.approx((0 + expected) / 2, abs=1e-6)
    none = overlap_advantage(P.log(), Q.log(), torch.zeros(2, 4, dtype=torch.bool))
    assert none.tolist() == [0, 0]


def test_a_position_without_overlap_has_no_advantage():
    apart = support()
    apart.from_student[0, 0] = False
    expected = 2 * means()["overlap_advantage"]  # the first position added 0 and one to the count
    assert means(compared=apart)["overlap_advantage"] == pytest.approx(expected)


def test_masses_on_support_and_overlap():
    made = means()
    assert made["mass/student_support"] == pytest.approx((0.9 + 0.9) / 2)
    assert made["mass/teacher_support"] == pytest.approx((0.9 + 0.8) / 2)
    assert made["mass/student_overlap"] == pytest.approx((0.6 + 0.9) / 2)
    assert made["mass/teacher_overlap"] == pytest.approx((0.5 + 0.8) / 2)


def entropy(row):
    return -sum(x * log(x) for x in row if x)


def test_entropies_and_their_gap():
    ours, theirs = ([entropy(row) for row in t.tolist()] for t in (P, Q))
    made = means()
    assert made["entropy/student"] == pytest.approx(sum(ours) / 2)
    assert made["entropy/teacher"] == pytest.approx(sum(theirs) / 2)
    gaps = [abs(a - b) for a, b in zip(ours, theirs)]
    assert made["entropy_gap"] == pytest.approx(sum(gaps) / 2) and gaps[0] > 0.05


def test_a_teacher_that_does_not_know_its_entropy():
    teacher = view(Q)
    teacher.entropy = lambda: None
    sums = position_sums(view(P), teacher, support(), at(), STOP)
    assert "kl/all" in sums and not any("entropy" in name for name in sums)


def test_stops_are_early_and_late():
    """The teacher gives the stop 0.1, then 0.6."""
    assert (means()["stop/early"], means()["stop/late"]) == (0, 0)
    swapped = means(where=at(stops=(True, False)))
    assert (swapped["stop/early"], swapped["stop/late"]) == (1, 1)
    assert "stop/early" not in means(where=at(stops=(False, False)))
    assert means(where=at(stops=(False, False)))["stop/late"] == 0.5
    both = means(where=at(stops=(True, False)), stop_ids=torch.tensor([0, 3]))  # two stops add up: 0.6, 0.8
    assert (both["stop/early"], both["stop/late"]) == (0, 1)
    assert not any("stop" in name for name in means(stop_ids=STOP[:0]))


def test_what_the_teacher_does_not_know_is_left_out():
    teacher = Q.clone()
    teacher[0, 1], teacher[1] = 0.0, torch.nan  # the first knows tokens 0 and 2, the second nothing
    made = means(teacher=teacher)
    assert made["kl/all"] == pytest.approx(kl([0.5, 0.1], [0.6, 0.2]), rel=1e-4)
    assert made["mass/student_support"] == pytest.approx((0.8 + 0) / 2)
    assert "stop/early" not in made and made["stop/late"] == 0  # nothing is known of the second, where it stops
    assert "stop/late" not in means(teacher=teacher, where=at(stops=(True, False)))
    assert all(isfinite(value) for value in made.values())


def test_equal_views_agree():
    made = means(student=Q)
    zero = ("kl/all", "overlap_advantage", "entropy_gap")
    assert [made[name] for name in zero] == [pytest.approx(0, abs=1e-6)] * 3
    assert mass(Q.log(), torch.ones(2, 4, dtype=torch.bool)).tolist() == pytest.approx([1, 1])
    assert support_kl(P.log(), Q.log(), torch.zeros(2, 4, dtype=torch.bool)).tolist() == [0, 0]


def test_places_by_hand():
    made = places([[5, 5, 5, 9], [9]], ["English", "Chinese"], torch.tensor([0, 1, 3, 4]), [9])
    assert made.deciles.tolist() == [0, 2, 7, 0]
    assert made.languages == ["English"] * 3 + ["Chinese"] and made.stops.tolist() == [False, False, True, True]


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_positions_that_equation_one_counts_are_measured_in_chunks(monkeypatch, chunk):
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    order = [0, 1, 1, 0, 1]
    made = support()
    many = Support(*(getattr(made, name)[order] for name in made.__dataclass_fields__))
    many.valid[4, 1] = False  # one token is nothing to compare
    where = at(stops=[order_ == 1 for order_ in order], languages=["a", "b", "b", "a", "b"], deciles=order)
    head = HeadView(P.clamp(min=1e-30).log()[order], torch.eye(4), torch.zeros(4, dtype=torch.bool))
    sums = measure(head, view(Q[order]), many, where, STOP)
    assert sums["kl/all#"] == 4 and sums["kl/all"] == pytest.approx(2 * FIRST + 2 * SECOND)
    assert (sums["kl/language_a#"], sums["kl/language_b#"], sums["stop/early#"]) == (2, 2, 2)
    assert all(type(value) is float for value in sums.values())


def test_nothing_counted_measures_nothing():
    none = support()
    none.valid[:] = False
    head = HeadView(P.log(), torch.eye(4), torch.zeros(4, dtype=torch.bool))
    assert measure(head, view(Q), none, at(), STOP) == {}
