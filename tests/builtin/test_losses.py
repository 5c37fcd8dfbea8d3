"""Losses against loops over positions in float64, and what must not change their values; equation (1) first."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import SIZES, opd, trainable
from tiny import batch
from torch.nn.functional import pad

from arkasr.builtin import divergences
from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.distill.step import Opd
from arkasr.distill.support import shared_support, union_support
from arkasr.distributions import chunked_head
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.interfaces import Loss, Support
from arkasr.plugins.registry import create
from arkasr.testing import check_loss
from arkasr.utils.timing import Phases


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


# --- every loss that ships inside ------------------------------------------------------------------------------------

WITH_TAIL = {"tail": True}
DIVERGENCES = [
    ("union_topk_kl", {}),
    ("union_topk_kl", {"temperature": 2.0}),
    ("union_topk_kl", WITH_TAIL),
    ("teacher_topk_kl", {"temperature": 0.5}),
    ("teacher_topk_kl", WITH_TAIL),
    ("student_topk_reverse_kl", {"temperature": 2.0}),
    ("student_topk_reverse_kl", WITH_TAIL),
    ("full_kl", {}),
    ("reverse_kl", {}),
    ("jsd", {"beta": 0.2}),
]
ALL = [*DIVERGENCES, ("sampled_reverse_kl", {}), ("ark_compat", {"temperature": 2.0})]
IN_FULL = ("full_kl", "reverse_kl", "jsd")


def named_case(seed, unknown=False):
    """A case whose tokens are named by one side or both; unknown: the teacher answers -inf and NaN here and there."""
    ours, theirs, support = case(seed, vocab=13, density=0.8)
    made = torch.Generator().manual_seed(seed)
    by_teacher, by_student = torch.rand(2, *support.valid.shape, generator=made) < 0.6
    support.from_teacher = support.valid & (by_teacher | ~by_student)
    support.from_student = support.valid & (by_student | ~by_teacher)
    support.visited_student = ours.argmax(-1)
    support.visited_teacher = torch.randint(-1, 13, (9,), generator=made)
    table = theirs.log_softmax(-1)
    if unknown:
        table[torch.rand(table.shape, generator=made) < 0.2] = -math.inf
        table[torch.rand(table.shape, generator=made) < 0.1] = math.nan
    return ours, table, support


def reference(name, options, scores, table, support):
    """A loss by its formula in float64, position by position, on plain probabilities; scores: the student's [P, V]."""
    total, count, log_q, table = scores.sum() * 0.0, 0, scores.log_softmax(-1), table.double()
    tau, tail = options.get("temperature", 1.0), options.get("tail", False) or name in IN_FULL
    chosen = {"teacher_topk_kl": support.from_teacher, "student_topk_reverse_kl": support.from_student}
    chosen = chosen.get(name, support.valid) & support.valid
    for at in range(len(chosen)):
        pairs = [(int(support.student_ids[at, u]), int(support.teacher_ids[at, u])) for u in chosen[at].nonzero()[:, 0]]
        pairs = [(s, t) for s, t in pairs if not table[at, t].isnan()]
        if tail or "reverse" in name:
            pairs = [(s, t) for s, t in pairs if table[at, t] > -math.inf]
        if sum(float(table[at, t]) > -math.inf for _, t in pairs) < (1 if tail else 2):
            continue
        p, q = table[at, [t for _, t in pairs]].exp(), log_q[at, [s for s, _ in pairs]].exp()
        if tail:
            p, q = torch.cat([p, 1 - p.sum()[None]]), torch.cat([q, 1 - q.sum()[None]])
        else:
            p, q = p ** (1 / tau), q ** (1 / tau)
            p, q = p / p.sum(), q / q.sum()
        if "reverse" in name:
            p, q = q, p
        mixed = options["beta"] * p + (1 - options["beta"]) * q if name == "jsd" else q
        forward = (torch.special.xlogy(p, p) - torch.special.xlogy(p, mixed)).sum()
        if name == "jsd":
            forward = options["beta"] * forward + (1 - options["beta"]) * (q * (q / mixed).log()).sum()
        total, count = total + tau**2 * forward, count + 1
    return total, count


@pytest.mark.parametrize(("name", "options"), DIVERGENCES)
@pytest.mark.parametrize("unknown", [False, True])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_numbers_and_gradients_are_those_of_float64(name, options, unknown, seed):
    ours, table, support = named_case(seed, unknown)
    leaf, exact = ours.clone().requires_grad_(), ours.double().requires_grad_()
    total, count = create("loss", name, options)(DenseView(leaf), Rows(table), support)
    total.backward()
    expected, positions = reference(name, options, exact, table, support)
    expected.backward()
    assert int(count) == positions and total.dtype == torch.float32
    assert float(total.detach()) == pytest.approx(float(expected.detach()), abs=1e-4, rel=1e-4)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-4, rtol=1e-4)


class Rows(Wire):
    """A table of which some rows can be asked for."""

    def at(self, rows):
        """Return these rows only."""
        return Rows(self.table[rows])


@pytest.mark.parametrize(("name", "options"), [*DIVERGENCES, ("sampled_reverse_kl", {})])
def test_the_kit_passes_them(name, options):
    check_loss(create("loss", name, options), divergence=name != "sampled_reverse_kl")


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("rows", [2, 100])
def test_the_head_and_dense_logits_agree(name, options, rows, monkeypatch):
    monkeypatch.setattr(chunked_head, "ROWS", rows)
    _, table, support = named_case(3)
    states, weight = torch.randn(9, 4), torch.randn(13, 4)
    blocked = torch.zeros(13, dtype=torch.bool)
    blocked[support.student_ids[0, 0]] = True
    results = []
    for kind in ("head", "dense"):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        view = HeadView(s, w, blocked) if kind == "head" else DenseView(s @ w.T, blocked)
        total, count = create("loss", name, options)(view, DenseView(table), support)
        total.backward()
        results.append((total.detach(), count, s.grad, w.grad))
    assert results[0][3].abs().sum() > 0
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_renaming_the_students_tokens_changes_nothing(name, options):
    ours, table, support = named_case(4)
    new = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    moved = torch.empty_like(ours)
    moved[:, new] = ours
    renamed = replace(support, student_ids=new[support.student_ids], visited_student=new[support.visited_student])
    results = [
        create("loss", name, options)(DenseView(o), DenseView(table), s) for o, s in ((ours, support), (moved, renamed))
    ]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def everything(positions=9, vocab=17):
    ids = torch.arange(vocab).expand(positions, vocab)
    return support_of(ids, ids, torch.ones(positions, vocab, dtype=torch.bool))


@pytest.mark.parametrize(
    "name", ["full_kl", "reverse_kl", "union_topk_kl", "teacher_topk_kl", "student_topk_reverse_kl"]
)
@pytest.mark.parametrize("tail", [True, False])
def test_k_of_the_whole_vocabulary_is_exact(name, tail):
    ours, theirs, _ = case(8)
    p, q = theirs.double().log_softmax(-1), ours.double().log_softmax(-1)
    p, q = (q, p) if "reverse" in name else (p, q)
    options = {} if name in IN_FULL else {"tail": tail}
    total, count = create("loss", name, options)(DenseView(ours), DenseView(theirs), everything())
    assert int(count) == 9
    assert float(total) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "full"),
    [("union_topk_kl", "full_kl"), ("teacher_topk_kl", "full_kl"), ("student_topk_reverse_kl", "reverse_kl")],
)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 40))
def test_a_top_k_with_its_tail_is_at_most_the_whole(name, full, seed, k):
    """Also for k = 1, and k above the vocabulary; more tokens bring it nearer."""
    made = torch.Generator().manual_seed(seed)
    ours, theirs = (DenseView(3 * torch.randn(5, 17, generator=made)) for _ in range(2))
    whole = float(create("loss", full, {})(ours, theirs, everything(5))[0])

    def truncated(k):
        support = union_support(theirs.topk(k)[0], ours.topk(k)[0], ours.topk(1)[0][:, 0], Same())
        total, count = create("loss", name, WITH_TAIL)(ours, theirs, support)
        assert int(count) == 5
        return float(total)

    few, more = truncated(k), truncated(k + 3)
    assert -1e-5 <= few <= more + 1e-4 <= whole + 2e-4
    assert k < 17 or few == pytest.approx(whole, rel=1e-4)


class Same:
    """A mapper between equal vocabularies; the teacher lacks `missing`, and `twin` means the same to it as token 0."""

    def __init__(self, missing=(), twin=None):
        self.missing, self.twin = list(missing), twin

    def to_teacher(self, ids):
        """Return the ids, -1 for a missing one."""
        known = torch.where(ids == self.twin, 0, ids) if self.twin is not None else ids
        return known.masked_fill(torch.isin(ids, torch.tensor(self.missing, dtype=torch.long)), -1)

    to_student = to_teacher


def test_the_shared_support_lists_each_shared_token_once_and_takes_no_memory():
    support = shared_support(9, torch.tensor([3, 5, 7]), Same(missing=[2, 5], twin=8))
    assert support.student_ids.tolist() == support.teacher_ids.tolist() == [[0, 1, 3, 4, 6, 7]] * 3
    assert support.valid.all() and support.from_teacher.all() and support.from_student.all()
    assert support.visited_student.tolist() == [3, 5, 7] and support.visited_teacher.tolist() == [3, -1, 7]
    assert {table.stride(0) for table in (support.student_ids, support.teacher_ids, support.valid)} == {0}


@pytest.mark.parametrize("name", IN_FULL)
def test_what_is_not_shared_is_one_outcome_a_side(name):
    ours, theirs, _ = case(21)
    support = shared_support(17, torch.zeros(9, dtype=torch.long), Same(missing=range(5, 17)))
    loss = create("loss", name, {})
    assert loss.needs == "shared"
    options = {"beta": 0.5}
    expected, _ = reference(name, options, ours.double(), theirs.double().log_softmax(-1), support)
    total, count = loss(DenseView(ours), DenseView(theirs), support)
    assert int(count) == 9 and float(total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", IN_FULL)
def test_a_step_hands_whole_losses_every_shared_token(name):
    lm, clips = trainable(), batch(SIZES[:3])
    one = opd(lm)
    made = one.collect(lm, clips, Phases())
    one.loss = create("loss", name, {})
    total, count = one.rescore(lm, made)
    mapper = one.mapper
    s_ids = [i for i in range(len(lm.blocked)) if int(mapper.to_teacher(torch.tensor(i))) >= 0]
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(made.batch.waveforms), made.batch.languages)
        states = lm.transcript_states(prompts, made.rollout.made.ids)[made.student_rows]
        q = (states @ lm.head.T).double().masked_fill(lm.blocked, -math.inf).softmax(-1)[:, s_ids]
    p = made.teacher_view.logits.double().softmax(-1)[:, mapper.to_teacher(torch.tensor(s_ids))]
    p, q = (torch.cat([side, 1 - side.sum(-1, keepdim=True)], -1) for side in (p, q))
    mixed = (p + q) / 2
    expected = {
        "full_kl": p * (p / q).log(), "reverse_kl": q * (q / p).log(),
        "jsd": (p * (p / mixed).log() + q * (q / mixed).log()) / 2,
    }  # fmt: skip
    assert int(count) == len(p) > 3
    assert float(total.detach()) == pytest.approx(float(expected[name].sum()), rel=1e-4)
    total.backward()
    assert lm.head.grad.isfinite().all() and lm.head.grad.any()


def test_a_loss_that_needs_something_else_is_refused():
    lm = trainable()
    one = opd(lm)
    one.loss.needs = "logits"
    with pytest.raises(UserError, match="UnionTopkKl.*'logits'"):
        Opd(one.teacher, one.mapper, one.loss, one.rollout, one.distill)


def test_the_sampled_loss_has_the_reverse_kl_as_mean_and_its_gradient():
    """Every token in turn is the visited one, weighted by its probability."""
    ours, theirs, _ = case(17, positions=1)
    sampled, whole = create("loss", "sampled_reverse_kl", {}), ours.clone().requires_grad_()
    mean, gradient = 0.0, torch.zeros_like(ours)
    for token, weight in enumerate(ours.softmax(-1)[0]):
        leaf, support = ours.clone().requires_grad_(), everything(1)
        support.visited_student = support.visited_teacher = torch.tensor([token])
        total, count = sampled(DenseView(leaf), DenseView(theirs), support)
        total.backward()
        assert int(count) == 1
        mean, gradient = mean + float(weight * total.detach()), gradient + weight * leaf.grad
        gap = (ours.log_softmax(-1) - theirs.log_softmax(-1))[0, token]
        assert float(total.detach()) == pytest.approx(float(gap), abs=1e-5)
        direction = torch.nn.functional.one_hot(torch.tensor([token]), 17) - ours.softmax(-1)
        torch.testing.assert_close(leaf.grad, gap * direction, atol=1e-5, rtol=1e-4)
    divergence = create("loss", "reverse_kl", {})(DenseView(whole), DenseView(theirs), everything(1))[0]
    divergence.backward()
    assert mean == pytest.approx(float(divergence.detach()), rel=1e-4)
    torch.testing.assert_close(gradient, whole.grad, atol=1e-5, rtol=1e-4)


def test_the_sampled_loss_leaves_out_tokens_that_the_teacher_lacks():
    ours, table, support = named_case(18)
    support.visited_teacher = torch.tensor([-1, 0, 1, 2, 3, 4, 5, 6, -1])
    table[1, 0], table[2, 1] = -math.inf, math.nan
    leaf = ours.clone().requires_grad_()
    total, count = create("loss", "sampled_reverse_kl", {})(DenseView(leaf), Wire(table), support)
    total.backward()
    assert int(count) == 5 and leaf.grad[[0, 1, 2, 8]].eq(0).all() and leaf.grad[3:8].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_the_published_arithmetic_mixes_logits_and_log_probabilities(tau):
    ours, theirs, _ = case(19, vocab=13)
    _, _, support = named_case(19)
    theirs = 5 + 3 * theirs
    expected, count = 0.0, 0
    for at in range(9):
        places = support.valid[at].nonzero()[:, 0].tolist()
        raw, true = theirs[at].double(), theirs[at].double().log_softmax(0)
        ids = [int(support.teacher_ids[at, u]) for u in places]
        mixed = [float((raw if support.from_teacher[at, u] else true)[t]) for u, t in zip(places, ids)]
        if len(places) >= 2:
            target = (torch.tensor(mixed, dtype=torch.float64) / tau).log_softmax(0)
            given_ = (ours[at, support.student_ids[at, places]].double() / tau).log_softmax(0)
            expected, count = expected + tau**2 * float((target.exp() * (target - given_)).sum()), count + 1
    compat, paper = (create("loss", name, {"temperature": tau}) for name in ("ark_compat", "union_topk_kl"))
    total, positions = compat(DenseView(ours), DenseView(theirs), support)
    assert int(positions) == count and float(total) == pytest.approx(expected, rel=1e-4)
    assert abs(float(paper(DenseView(ours), DenseView(theirs), support)[0]) - expected) > 0.1


def test_the_published_arithmetic_needs_raw_logits():
    ours, table, support = named_case(20)
    with pytest.raises(UserError, match="raw logits.*Wire.*union_topk_kl"):
        create("loss", "ark_compat", {})(DenseView(ours), Wire(table), support)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_premature_stop_is_pushed_down(name, options):
    """The student stops (token 16, also its pad), the teacher wants words; only the student names the stop."""
    scores, wants = torch.zeros(1, 17), torch.zeros(1, 17)
    scores[0, 16], wants[0, 3], wants[0, 5] = 4.0, 6.0, 5.0
    ids, stop = torch.tensor([[3, 5, 16, 7]]), torch.tensor([16])
    named = torch.tensor([[True, True, False, False]])
    support = Support(ids, ids, named | ~named, named, ~named, stop, stop)
    leaf = scores.clone().requires_grad_()
    total, count = create("loss", name, options)(DenseView(leaf), DenseView(wants), support)
    total.backward()
    assert int(count) == 1
    if name == "teacher_topk_kl" and not options.get("tail"):
        assert leaf.grad[0, 16] == 0  # as its docstring says
    else:
        assert leaf.grad[0, 16] > 0.03


@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_broken_student_is_not_hidden(name, options):
    ours, table, support = named_case(22)
    ours[3] = math.nan
    support.visited_teacher = support.visited_teacher.clamp(min=0)
    assert create("loss", name, options)(DenseView(ours), DenseView(table), support)[0].isnan()


def test_a_tail_below_rounding_is_defined():
    """All mass on the support, on one side or both: finite, and nothing where both agree."""
    sure, spread = torch.full((1, 17), -40.0), torch.zeros(1, 17)
    sure[0, 2] = 40.0
    ids = torch.tensor([[2]])
    support = support_of(ids, ids, torch.ones(1, 1, dtype=torch.bool))
    for name in ("union_topk_kl", "student_topk_reverse_kl"):
        for a, b in ((sure, sure), (sure, spread), (spread, sure)):
            leaf = a.clone().requires_grad_()
            total, count = create("loss", name, WITH_TAIL)(DenseView(leaf), DenseView(b), support)
            total.backward()
            assert int(count) == 1 and total.isfinite() and leaf.grad.isfinite().all()
            assert (float(total.detach()) > 1) == (a is not b)


@pytest.mark.parametrize("name", ["union_topk_kl", "student_topk_reverse_kl", "full_kl", "reverse_kl", "jsd"])
@pytest.mark.parametrize("gap", [8.0, 14.0, 18.0, 30.0, 60.0])
@pytest.mark.parametrize("kind", ["head", "dense"])
def test_a_student_that_is_surely_wrong_is_told_so(name, gap, kind):
    """Its tail is far below rounding, the teacher's is not: loss and gradient are those of float64."""
    states, weight, wants = torch.tensor([[1.0]]), torch.zeros(50, 1), torch.zeros(1, 50)
    weight[:4, 0], wants[0, :4] = gap - torch.arange(4.0), 2.0
    ids = torch.arange(4)[None]
    support = support_of(ids, ids, torch.ones(1, 4, dtype=torch.bool))
    leaf, exact = weight.requires_grad_(), weight.detach().double().requires_grad_()
    view = HeadView(states, leaf, torch.zeros(50, dtype=torch.bool)) if kind == "head" else DenseView(states @ leaf.T)
    total, _ = create("loss", name, {} if name in IN_FULL else WITH_TAIL)(view, DenseView(wants), support)
    total.backward()
    p, q = (
        torch.cat([part[:, :4], part[:, 4:].logsumexp(-1, keepdim=True)], -1)
        for part in (wants.double().log_softmax(-1), exact.T.log_softmax(-1))
    )
    p, q = (q, p) if "reverse" in name else (p, q)
    mixed = (p.exp() / 2 + q.exp() / 2).log() if name == "jsd" else q
    expected = (p.exp() * (p - mixed)).sum()
    if name == "jsd":
        expected = expected / 2 + (q.exp() * (q - mixed)).sum() / 2
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-6, rtol=1e-4)


def test_log1mexp():
    x = torch.tensor([-1e-6, -1e-3, -0.5, -0.6931, -0.7, -5.0, -30.0, -200.0])
    expected = (-torch.expm1(x.double())).log()
    torch.testing.assert_close(divergences.log1mexp(x).double(), expected, rtol=1e-6, atol=1e-12)
    assert divergences.log1mexp(torch.tensor(-30.0)) < 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("union_topk_kl", {"temperature": 2.0, "tail": True}, "temperature=2.0.*tail"),
        ("teacher_topk_kl", {"temperature": 0.0}, "above 0"),
        ("ark_compat", {"temperature": -1.0}, "above 0"),
        ("jsd", {"beta": 0.0}, "beta=0.0.*full_kl"),
        ("jsd", {"beta": 1.0}, "beta=1.0.*reverse_kl"),
        ("jsd", {"betta": 0.5}, "betta.*beta"),
        ("full_kl", {"temperature": 2.0}, "temperature"),
    ],
)
def test_options_are_checked(name, options, said):
    with pytest.raises(UserError, match=said):
        create("loss", name, options)
