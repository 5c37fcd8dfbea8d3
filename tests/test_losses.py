"""Equation (1) against a loop over positions in float64, and what must not change its value."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import pad

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.interfaces import Loss, Support, UserError
from arkasr.views import DenseView, HeadView


class Wire:
    """A teacher that holds only what came over a wire: a table [P, V] of log-probabilities or scores."""

    def __init__(self, table):
        self.table, self.vocab_size = table, table.shape[1]

    def logprobs_at(self, ids):
        """Return the table's values."""
        return self.table.gather(-1, ids)


def loss(temperature=1.0):
    return UnionTopkKl(UnionTopkKlOptions(temperature))


def support_of(student_ids, teacher_ids, valid):
    seen = torch.zeros(len(valid), dtype=torch.long)
    return Support(student_ids.where(valid, 0), teacher_ids.where(valid, 0), valid, valid, valid, seen, seen)


def case(seed, positions=9, width=6, vocab=17, density=0.6):
    """Random logits of both and a random support of distinct tokens; the teacher's ids are a permutation of ours."""
    made = torch.Generator().manual_seed(seed)
    ours, theirs = 2 * torch.randn(2, positions, vocab, generator=made)
    order = torch.randperm(vocab, generator=made)
    ids = torch.stack([torch.randperm(vocab, generator=made)[:width] for _ in range(positions)])
    valid = torch.rand(positions, width, generator=made) < density
    return ours, theirs, support_of(ids, order[ids], valid)


def slow(ours, theirs, support, temperature):
    """Equation (1) position by position, in Python floats."""
    total, count = 0.0, 0
    for p in range(len(support.valid)):
        places = [u for u in range(support.valid.shape[1]) if support.valid[p, u]]
        z_t = [float(theirs[p, support.teacher_ids[p, u]]) for u in places]
        z_s = [float(ours[p, support.student_ids[p, u]]) for u in places]
        if len(places) < 2:
            continue
        norm_t = sum(math.exp(z / temperature) for z in z_t)
        norm_s = sum(math.exp(z / temperature) for z in z_s)
        for a, b in zip(z_t, z_s):
            target, given_ = math.exp(a / temperature) / norm_t, math.exp(b / temperature) / norm_s
            total += temperature**2 * target * (math.log(target) - math.log(given_))
        count += 1
    return total, count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.1, 0.4, 0.8, 1.0]))
def test_equation_one(temperature, seed, density):
    ours, theirs, support = case(seed, density=density)
    expected, positions = slow(ours, theirs, support, temperature)
    total, count = loss(temperature)(DenseView(ours), DenseView(theirs), support)
    assert int(count) == positions and total.dtype == torch.float32
    assert float(total) == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_gradient_is_that_of_equation_one(temperature):
    ours, theirs, support = case(5)
    leaf, exact = ours.clone().requires_grad_(), ours.double().requires_grad_()
    loss(temperature)(DenseView(leaf), DenseView(theirs), support)[0].backward()
    total = exact.new_zeros(())
    for p, valid in enumerate(support.valid):
        if valid.sum() >= 2:
            target = (theirs[p, support.teacher_ids[p, valid]].double() / temperature).softmax(0)
            total = total - temperature**2 * (
                target @ (exact[p, support.student_ids[p, valid]] / temperature).log_softmax(0)
            )
    total.backward()
    assert leaf.grad.abs().sum() > 0
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)


def test_a_head_view_gives_the_same_loss_and_gradient():
    _, theirs, support = case(6)
    states, weight = torch.randn(9, 4), torch.randn(17, 4)
    results = []
    for kind in ("head", "dense"):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        none = torch.zeros(17, dtype=torch.bool)
        view = HeadView(s, w, none) if kind == "head" else DenseView(s @ w.T, none)
        total, _ = loss()(view, DenseView(theirs), support)
        total.backward()
        results.append((total.detach(), s.grad, w.grad))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_its_own_teacher_gives_nothing_and_pulls_nowhere():
    ours, _, support = case(7)
    support.teacher_ids = support.student_ids
    leaf = ours.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), DenseView(ours), support)
    total.backward()
    assert int(count) > 0
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-6)
    assert leaf.grad.abs().max() < 1e-6


def test_the_whole_vocabulary_gives_the_exact_divergence():
    ours, theirs, _ = case(8)
    everything = torch.arange(17).expand(9, 17)
    support = support_of(everything, everything, torch.ones(9, 17, dtype=torch.bool))
    p, q = theirs.double().log_softmax(-1), ours.double().log_softmax(-1)
    expected = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True)
    total, count = loss()(DenseView(ours), DenseView(theirs), support)
    assert int(count) == 9
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


def test_renaming_the_tokens_changes_nothing():
    ours, theirs, support = case(9)
    new = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    renamed = support_of(new[support.student_ids], support.teacher_ids, support.valid)
    moved = torch.empty_like(ours)
    moved[:, new] = ours
    a, b = (loss()(DenseView(o), DenseView(theirs), s) for o, s in ((ours, support), (moved, renamed)))
    torch.testing.assert_close(a, b)


def test_the_order_and_the_padding_of_the_support_change_nothing():
    ours, theirs, support = case(10)
    turned = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    tables = (support.student_ids, support.teacher_ids, support.valid)
    wide = support_of(*(pad(table[:, turned], (3, 2)) for table in tables))
    a, b = (loss(2.0)(DenseView(ours), DenseView(theirs), s) for s in (support, wide))
    torch.testing.assert_close(a, b)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), max_size=4))
def test_micro_batches_add_up(seed, cuts):
    ours, theirs, support = case(seed)
    whole, count = loss()(DenseView(ours), DenseView(theirs), support)
    ends = sorted([0, *cuts, 9])
    sums = [
        loss()(
            DenseView(ours).at(rows),
            DenseView(theirs).at(rows),
            support_of(support.student_ids[rows], support.teacher_ids[rows], support.valid[rows]),
        )
        for rows in (torch.arange(a, b) for a, b in zip(ends, ends[1:]))
    ]
    assert float(sum(s for s, _ in sums)) == pytest.approx(float(whole), abs=1e-5)
    assert sum(int(c) for _, c in sums) == int(count)


def test_a_constant_a_position_changes_nothing():
    """Raw scores and log-probabilities are the same teacher, and the same student."""
    ours, theirs, support = case(12)
    shift = 50 * torch.randn(9, 1)
    raw, normal = theirs + shift, theirs.log_softmax(-1)
    a, b = (loss(0.5)(DenseView(ours), Wire(table), support) for table in (raw, normal))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    c = loss(0.5)(DenseView(ours + shift), Wire(normal), support)
    torch.testing.assert_close(c, b, atol=1e-3, rtol=1e-3)


def test_positions_with_fewer_than_two_tokens_do_not_count():
    ours, theirs, support = case(13, density=1.0)
    support.valid[:] = False
    support.valid[0, 0] = support.valid[2, 1] = support.valid[2, 4] = True
    leaf = ours.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), DenseView(theirs), support)
    total.backward()
    assert int(count) == 1
    assert leaf.grad[[0, 1]].eq(0).all() and leaf.grad[3:].eq(0).all() and leaf.grad[2].ne(0).any()


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_token_that_the_teacher_does_not_know(value):
    """-inf is probability 0 and stays among what the student spreads over; NaN is no answer and leaves the support."""
    ours, theirs, support = case(14, positions=3, density=1.0)
    table = theirs.log_softmax(-1)
    table[0, support.teacher_ids[0, 1]] = value
    table[1, support.teacher_ids[1, :5]] = value
    leaf = ours.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), Wire(table), support)
    total.backward()
    places = [0, 2, 3, 4, 5]
    target = table[0, support.teacher_ids[0, places]].double().softmax(0)
    scores = ours[0, support.student_ids[0]].double()
    norm = scores.logsumexp(0) if value == -math.inf else scores[places].logsumexp(0)
    expected = float(target @ (target.log() - (scores[places] - norm)))
    target, scores = table[2, support.teacher_ids[2]].double(), ours[2, support.student_ids[2]].double()
    expected += float(target.softmax(0) @ (target.log_softmax(0) - scores.log_softmax(0)))
    assert int(count) == 2 and float(total.detach()) == pytest.approx(expected, rel=1e-5)
    assert leaf.grad.isfinite().all() and leaf.grad[1].eq(0).all()
    pulled = leaf.grad[0, support.student_ids[0, 1]] != 0
    assert bool(pulled) == (value == -math.inf)


@pytest.mark.parametrize("positions", [0, 4])
def test_an_empty_support_is_zero_and_can_be_walked_back(positions):
    states = torch.randn(positions, 3, requires_grad=True)
    weight = torch.randn(17, 3, requires_grad=True)
    nothing = torch.zeros(positions, 6, dtype=torch.long)
    support = support_of(nothing, nothing, nothing.bool())
    view = HeadView(states, weight, torch.zeros(17, dtype=torch.bool))
    total, count = loss()(view, DenseView(torch.randn(positions, 17)), support)
    total.backward()
    assert total.item() == 0.0 and count.item() == 0
    assert weight.grad.eq(0).all() and states.grad is not None and states.grad.eq(0).all()


def test_blocked_student_tokens_do_not_make_the_gradient_nan():
    ours, theirs, support = case(15, density=1.0)
    blocked = torch.zeros(17, dtype=torch.bool)
    blocked[support.student_ids[0, 0]] = True
    leaf = ours.clone().requires_grad_()
    total, _ = loss()(DenseView(leaf, blocked), DenseView(theirs), support)
    total.backward()
    assert total.isfinite() and leaf.grad.isfinite().all()


def test_mass_on_a_premature_stop_is_pushed_down():
    """A rollout that is only a stop: where the teacher wants words, descent lowers the stop's score."""
    stop, scores = 16, torch.zeros(1, 17)
    scores[0, stop] = 4.0
    wants = torch.zeros(1, 17)
    wants[0, 3] = 6.0
    ids = torch.tensor([[stop, 3, 5]])
    leaf = scores.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), DenseView(wants), support_of(ids, ids, torch.ones(1, 3, dtype=torch.bool)))
    total.backward()
    assert int(count) == 1 and leaf.grad[0, stop] > 0.5 and leaf.grad[0, 3] < -0.5


def test_nothing_flows_into_the_teacher():
    ours, theirs, support = case(16)
    ours.requires_grad_(), theirs.requires_grad_()
    loss()(DenseView(ours), DenseView(theirs), support)[0].backward()
    assert theirs.grad is None and ours.grad is not None


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_must_be_above_zero(temperature):
    with pytest.raises(UserError, match="temperature"):
        loss(temperature)


def test_it_fulfils_the_protocol():
    assert isinstance(loss(), Loss)
