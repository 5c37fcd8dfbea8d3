"""Losses compared with float64 loops over positions, and their invariances. Equation (1) comes first."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import SIZES, opd, trainable
from tiny import batch
from torch.nn.functional import pad

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.distill.step import Opd
from arkasr.distill.support import shared_support, shared_tokens, union_support
from arkasr.distributions import chunked_head
from arkasr.distributions.views import DenseView, HeadView
from arkasr.errors import UserError
from arkasr.interfaces import Loss, Support
from arkasr.plugins.registry import create
from arkasr.testing import check_loss
from arkasr.utils.timing import Phases


class LogprobTable:
    """A teacher's view that holds a table [P, V] of log-probabilities or scores, as from a server."""

    def __init__(self, table):
        self.table, self.vocab_size = table, table.shape[1]

    def logprobs_at(self, ids):
        """Return the values of the table."""
        return self.table.gather(-1, ids)


def loss(temperature=1.0):
    return UnionTopkKl(UnionTopkKlOptions(temperature))


def support_of(student_ids, teacher_ids, valid):
    seen = torch.zeros(len(valid), dtype=torch.long)
    return Support(student_ids.where(valid, 0), teacher_ids.where(valid, 0), valid, valid, valid, seen, seen)


def case(seed, positions=9, width=6, vocab=17, density=0.6):
    """Return random logits of student and teacher, and a random support. Teacher ids permute the student's."""
    draw = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, positions, vocab, generator=draw)
    order = torch.randperm(vocab, generator=draw)
    ids = torch.stack([torch.randperm(vocab, generator=draw)[:width] for _ in range(positions)])
    valid = torch.rand(positions, width, generator=draw) < density
    return student, teacher, support_of(ids, order[ids], valid)


def reference_equation_one(student, teacher, support, temperature):
    """Compute equation (1) position by position in Python floats."""
    total, count = 0.0, 0
    for p in range(len(support.valid)):
        places = [u for u in range(support.valid.shape[1]) if support.valid[p, u]]
        z_t = [float(teacher[p, support.teacher_ids[p, u]]) for u in places]
        z_s = [float(student[p, support.student_ids[p, u]]) for u in places]
        if len(places) < 2:
            continue
        norm_t = sum(math.exp(z / temperature) for z in z_t)
        norm_s = sum(math.exp(z / temperature) for z in z_s)
        for a, b in zip(z_t, z_s):
            p_t, p_s = math.exp(a / temperature) / norm_t, math.exp(b / temperature) / norm_s
            total += temperature**2 * p_t * (math.log(p_t) - math.log(p_s))
        count += 1
    return total, count


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0.1, 0.4, 0.8, 1.0]))
def test_union_topk_kl_matches_equation_one(temperature, seed, density):
    student, teacher, support = case(seed, density=density)
    expected, positions = reference_equation_one(student, teacher, support, temperature)
    total, count = loss(temperature)(DenseView(student), DenseView(teacher), support)
    assert int(count) == positions and total.dtype == torch.float32
    assert float(total) == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_union_topk_kl_gradient_matches_equation_one(temperature):
    student, teacher, support = case(5)
    leaf, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    loss(temperature)(DenseView(leaf), DenseView(teacher), support)[0].backward()
    total = exact.new_zeros(())
    for p, valid in enumerate(support.valid):
        if valid.sum() >= 2:
            target = (teacher[p, support.teacher_ids[p, valid]].double() / temperature).softmax(0)
            total = total - temperature**2 * (
                target @ (exact[p, support.student_ids[p, valid]] / temperature).log_softmax(0)
            )
    total.backward()
    assert leaf.grad.abs().sum() > 0
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-5, rtol=1e-5)


def test_union_topk_kl_is_equal_for_head_view_and_dense_view():
    _, teacher, support = case(6)
    states, weight = torch.randn(9, 4), torch.randn(17, 4)
    results = []
    for kind in ("head", "dense"):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        none = torch.zeros(17, dtype=torch.bool)
        view = HeadView(s, w, none) if kind == "head" else DenseView(s @ w.T, none)
        total, _ = loss()(view, DenseView(teacher), support)
        total.backward()
        results.append((total.detach(), s.grad, w.grad))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_union_topk_kl_of_equal_distributions_is_zero_with_zero_gradient():
    student, _, support = case(7)
    support.teacher_ids = support.student_ids
    leaf = student.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), DenseView(student), support)
    total.backward()
    assert int(count) > 0
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-6)
    assert leaf.grad.abs().max() < 1e-6


def test_union_topk_kl_on_whole_vocabulary_is_exact_kl():
    student, teacher, _ = case(8)
    everything = torch.arange(17).expand(9, 17)
    support = support_of(everything, everything, torch.ones(9, 17, dtype=torch.bool))
    log_p_t, log_p_s = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    expected = torch.nn.functional.kl_div(log_p_s, log_p_t, reduction="sum", log_target=True)
    total, count = loss()(DenseView(student), DenseView(teacher), support)
    assert int(count) == 9
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


def test_union_topk_kl_is_invariant_to_student_ids():
    student, teacher, support = case(9)
    new = torch.randperm(17, generator=torch.Generator().manual_seed(1))
    renamed = support_of(new[support.student_ids], support.teacher_ids, support.valid)
    moved = torch.empty_like(student)
    moved[:, new] = student
    a, b = (loss()(DenseView(o), DenseView(teacher), s) for o, s in ((student, support), (moved, renamed)))
    torch.testing.assert_close(a, b)


def test_union_topk_kl_is_invariant_to_order_and_padding_of_support():
    student, teacher, support = case(10)
    turned = torch.randperm(6, generator=torch.Generator().manual_seed(2))
    tables = (support.student_ids, support.teacher_ids, support.valid)
    wide = support_of(*(pad(table[:, turned], (3, 2)) for table in tables))
    a, b = (loss(2.0)(DenseView(student), DenseView(teacher), s) for s in (support, wide))
    torch.testing.assert_close(a, b)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), max_size=4))
def test_union_topk_kl_of_micro_batches_adds_up(seed, cuts):
    student, teacher, support = case(seed)
    full_value, count = loss()(DenseView(student), DenseView(teacher), support)
    ends = sorted([0, *cuts, 9])
    sums = [
        loss()(
            DenseView(student).at(rows),
            DenseView(teacher).at(rows),
            support_of(support.student_ids[rows], support.teacher_ids[rows], support.valid[rows]),
        )
        for rows in (torch.arange(a, b) for a, b in pairwise(ends))
    ]
    assert float(sum(s for s, _ in sums)) == pytest.approx(float(full_value), abs=1e-5)
    assert sum(int(c) for _, c in sums) == int(count)


def test_union_topk_kl_is_invariant_to_constant_per_position():
    """Logits and log-probabilities of the same model give the same loss, for teacher and student."""
    student, teacher, support = case(12)
    shift = 50 * torch.randn(9, 1)
    raw, normal = teacher + shift, teacher.log_softmax(-1)
    a, b = (loss(0.5)(DenseView(student), LogprobTable(table), support) for table in (raw, normal))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    c = loss(0.5)(DenseView(student + shift), LogprobTable(normal), support)
    torch.testing.assert_close(c, b, atol=1e-3, rtol=1e-3)


def test_union_topk_kl_does_not_count_positions_with_fewer_than_two_tokens():
    student, teacher, support = case(13, density=1.0)
    support.valid[:] = False
    support.valid[0, 0] = support.valid[2, 1] = support.valid[2, 4] = True
    leaf = student.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), DenseView(teacher), support)
    total.backward()
    assert int(count) == 1
    assert leaf.grad[[0, 1]].eq(0).all() and leaf.grad[3:].eq(0).all() and leaf.grad[2].ne(0).any()


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_union_topk_kl_with_unknown_teacher_token(value):
    """-inf is probability 0, and the token stays in the student's softmax. NaN removes it from the support."""
    student, teacher, support = case(14, positions=3, density=1.0)
    table = teacher.log_softmax(-1)
    table[0, support.teacher_ids[0, 1]] = value
    table[1, support.teacher_ids[1, :5]] = value
    leaf = student.clone().requires_grad_()
    total, count = loss()(DenseView(leaf), LogprobTable(table), support)
    total.backward()
    places = [0, 2, 3, 4, 5]
    target = table[0, support.teacher_ids[0, places]].double().softmax(0)
    scores = student[0, support.student_ids[0]].double()
    norm = scores.logsumexp(0) if value == -math.inf else scores[places].logsumexp(0)
    expected = float(target @ (target.log() - (scores[places] - norm)))
    target, scores = table[2, support.teacher_ids[2]].double(), student[2, support.student_ids[2]].double()
    expected += float(target.softmax(0) @ (target.log_softmax(0) - scores.log_softmax(0)))
    assert int(count) == 2 and float(total.detach()) == pytest.approx(expected, rel=1e-5)
    assert leaf.grad.isfinite().all() and leaf.grad[1].eq(0).all()
    pulled = leaf.grad[0, support.student_ids[0, 1]] != 0
    assert bool(pulled) == (value == -math.inf)


@pytest.mark.parametrize("positions", [0, 4])
def test_union_topk_kl_of_empty_support_is_zero_with_gradient_path(positions):
    states = torch.randn(positions, 3, requires_grad=True)
    weight = torch.randn(17, 3, requires_grad=True)
    zeros = torch.zeros(positions, 6, dtype=torch.long)
    support = support_of(zeros, zeros, zeros.bool())
    view = HeadView(states, weight, torch.zeros(17, dtype=torch.bool))
    total, count = loss()(view, DenseView(torch.randn(positions, 17)), support)
    total.backward()
    assert total.item() == 0.0 and count.item() == 0
    assert weight.grad.eq(0).all() and states.grad is not None and states.grad.eq(0).all()


def test_union_topk_kl_with_blocked_student_token_has_finite_gradient():
    student, teacher, support = case(15, density=1.0)
    blocked = torch.zeros(17, dtype=torch.bool)
    blocked[support.student_ids[0, 0]] = True
    leaf = student.clone().requires_grad_()
    total, _ = loss()(DenseView(leaf, blocked), DenseView(teacher), support)
    total.backward()
    assert total.isfinite() and leaf.grad.isfinite().all()


def test_union_topk_kl_lowers_premature_stop():
    """The rollout is only a stop token. The teacher expects words, so descent lowers the stop's score."""
    stop, scores = 16, torch.zeros(1, 17)
    scores[0, stop] = 4.0
    teacher_scores = torch.zeros(1, 17)
    teacher_scores[0, 3] = 6.0
    ids = torch.tensor([[stop, 3, 5]])
    leaf = scores.clone().requires_grad_()
    support = support_of(ids, ids, torch.ones(1, 3, dtype=torch.bool))
    total, count = loss()(DenseView(leaf), DenseView(teacher_scores), support)
    total.backward()
    assert int(count) == 1 and leaf.grad[0, stop] > 0.5 and leaf.grad[0, 3] < -0.5


def test_union_topk_kl_gives_teacher_no_gradient():
    student, teacher, support = case(16)
    student.requires_grad_(), teacher.requires_grad_()
    loss()(DenseView(student), DenseView(teacher), support)[0].backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_union_topk_kl_rejects_nonpositive_temperature(temperature):
    with pytest.raises(UserError, match="temperature"):
        loss(temperature)


def test_union_topk_kl_implements_protocol():
    assert isinstance(loss(), Loss)


# --- all eight losses ------------------------------------------------------------------------------------------------

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
    """Return a case in which one or both top-k sets name each token. unknown: add -inf and NaN to the teacher."""
    student, teacher, support = case(seed, vocab=13, density=0.8)
    draw = torch.Generator().manual_seed(seed)
    by_teacher, by_student = torch.rand(2, *support.valid.shape, generator=draw) < 0.6
    support.from_teacher = support.valid & (by_teacher | ~by_student)
    support.from_student = support.valid & (by_student | ~by_teacher)
    support.visited_student = student.argmax(-1)
    support.visited_teacher = torch.randint(-1, 13, (9,), generator=draw)
    table = teacher.log_softmax(-1)
    if unknown:
        table[torch.rand(table.shape, generator=draw) < 0.2] = -math.inf
        table[torch.rand(table.shape, generator=draw) < 0.1] = math.nan
    return student, table, support


def reference_loss(name, options, scores, table, support):
    """Compute a loss by its formula in float64, position by position. scores: the student's [P, V]."""
    total, count, log_p_s, table = scores.sum() * 0.0, 0, scores.log_softmax(-1), table.double()
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
        p_t, p_s = table[at, [t for _, t in pairs]].exp(), log_p_s[at, [s for s, _ in pairs]].exp()
        if tail:
            p_t, p_s = torch.cat([p_t, 1 - p_t.sum()[None]]), torch.cat([p_s, 1 - p_s.sum()[None]])
        else:
            p_t, p_s = p_t ** (1 / tau), p_s ** (1 / tau)
            p_t, p_s = p_t / p_t.sum(), p_s / p_s.sum()
        a, b = (p_s, p_t) if "reverse" in name else (p_t, p_s)  # KL(a || b)
        mixed = options["beta"] * p_t + (1 - options["beta"]) * p_s if name == "jsd" else b
        value = (torch.special.xlogy(a, a) - torch.special.xlogy(a, mixed)).sum()
        if name == "jsd":
            value = options["beta"] * value + (1 - options["beta"]) * (p_s * (p_s / mixed).log()).sum()
        total, count = total + tau**2 * value, count + 1
    return total, count


@pytest.mark.parametrize(("name", "options"), DIVERGENCES)
@pytest.mark.parametrize("unknown", [False, True])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_losses_match_float64_values_and_gradients(name, options, unknown, seed):
    student, table, support = named_case(seed, unknown)
    leaf, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    total, count = create("loss", name, options)(DenseView(leaf), RowTable(table), support)
    total.backward()
    expected, positions = reference_loss(name, options, exact, table, support)
    expected.backward()
    assert int(count) == positions and total.dtype == torch.float32
    assert float(total.detach()) == pytest.approx(float(expected.detach()), abs=1e-4, rel=1e-4)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-4, rtol=1e-4)


class RowTable(LogprobTable):
    """A table view that implements `at`."""

    def at(self, rows):
        """Return the view of some rows."""
        return RowTable(self.table[rows])


@pytest.mark.parametrize(("name", "options"), [*DIVERGENCES, ("sampled_reverse_kl", {})])
def test_losses_pass_plugin_check(name, options):
    check_loss(create("loss", name, options), divergence=name != "sampled_reverse_kl")


@pytest.mark.parametrize(("name", "options"), ALL)
@pytest.mark.parametrize("rows", [2, 100])
def test_losses_are_equal_for_head_view_and_dense_view(name, options, rows, monkeypatch):
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
def test_losses_are_invariant_to_student_ids(name, options):
    student, table, support = named_case(4)
    new = torch.randperm(13, generator=torch.Generator().manual_seed(1))
    moved = torch.empty_like(student)
    moved[:, new] = student
    renamed = replace(support, student_ids=new[support.student_ids], visited_student=new[support.visited_student])
    results = [
        create("loss", name, options)(DenseView(o), DenseView(table), s)
        for o, s in ((student, support), (moved, renamed))
    ]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def everything(positions=9, vocab=17):
    ids = torch.arange(vocab).expand(positions, vocab)
    return support_of(ids, ids, torch.ones(positions, vocab, dtype=torch.bool))


@pytest.mark.parametrize(
    "name", ["full_kl", "reverse_kl", "union_topk_kl", "teacher_topk_kl", "student_topk_reverse_kl"]
)
@pytest.mark.parametrize("tail", [True, False])
def test_losses_on_whole_vocabulary_are_exact(name, tail):
    student, teacher, _ = case(8)
    log_p_t, log_p_s = teacher.double().log_softmax(-1), student.double().log_softmax(-1)
    log_a, log_b = (log_p_s, log_p_t) if "reverse" in name else (log_p_t, log_p_s)
    options = {} if name in IN_FULL else {"tail": tail}
    total, count = create("loss", name, options)(DenseView(student), DenseView(teacher), everything())
    assert int(count) == 9
    assert float(total) == pytest.approx(float((log_a.exp() * (log_a - log_b)).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "full"),
    [("union_topk_kl", "full_kl"), ("teacher_topk_kl", "full_kl"), ("student_topk_reverse_kl", "reverse_kl")],
)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 40))
def test_topk_loss_with_tail_is_at_most_whole_vocabulary_loss(name, full, seed, k):
    """Cover k = 1 and k above the vocabulary size. A larger k brings the two closer."""
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (DenseView(3 * torch.randn(5, 17, generator=draw)) for _ in range(2))
    full_value = float(create("loss", full, {})(student, teacher, everything(5))[0])

    def truncated(k):
        support = union_support(teacher.topk(k)[0], student.topk(k)[0], student.topk(1)[0][:, 0], Same())
        total, count = create("loss", name, WITH_TAIL)(student, teacher, support)
        assert int(count) == 5
        return float(total)

    few, more = truncated(k), truncated(k + 3)
    assert -1e-5 <= few <= more + 1e-4 <= full_value + 2e-4
    assert k < 17 or few == pytest.approx(full_value, rel=1e-4)


class Same:
    """A mapper between equal vocabularies. The teacher lacks `missing` ids, and maps `twin` to token 0."""

    def __init__(self, missing=(), twin=None):
        self.missing, self.twin = list(missing), twin

    def to_teacher(self, ids):
        """Return the ids, -1 for missing ones."""
        known = torch.where(ids == self.twin, 0, ids) if self.twin is not None else ids
        return known.masked_fill(torch.isin(ids, torch.tensor(self.missing, dtype=torch.long)), -1)

    to_student = to_teacher


def support_of_shared_tokens(vocab_size, visited, mapper):
    return shared_support(*shared_tokens(vocab_size, visited.device, mapper), visited, mapper)


def test_shared_support_lists_shared_tokens_once_without_copies():
    support = support_of_shared_tokens(9, torch.tensor([3, 5, 7]), Same(missing=[2, 5], twin=8))
    assert support.student_ids.tolist() == support.teacher_ids.tolist() == [[0, 1, 3, 4, 6, 7]] * 3
    assert support.valid.all() and support.from_teacher.all() and support.from_student.all()
    assert support.visited_student.tolist() == [3, 5, 7] and support.visited_teacher.tolist() == [3, -1, 7]
    assert {table.stride(0) for table in (support.student_ids, support.teacher_ids, support.valid)} == {0}


@pytest.mark.parametrize("name", IN_FULL)
def test_whole_vocabulary_losses_sum_unshared_tokens_into_one_outcome(name):
    student, teacher, _ = case(21)
    support = support_of_shared_tokens(17, torch.zeros(9, dtype=torch.long), Same(missing=range(5, 17)))
    loss = create("loss", name, {})
    assert loss.needs == "shared"
    options = {"beta": 0.5}
    expected, _ = reference_loss(name, options, student.double(), teacher.double().log_softmax(-1), support)
    total, count = loss(DenseView(student), DenseView(teacher), support)
    assert int(count) == 9 and float(total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", IN_FULL)
def test_step_gives_whole_vocabulary_losses_all_shared_tokens(name):
    lm, clips = trainable(), batch(SIZES[:3])
    one = opd(lm)
    result = one.collect(lm, clips, Phases())
    one.loss = create("loss", name, {})
    total, count = one.rescore(lm, result)
    mapper = one.mapper
    s_ids = [i for i in range(len(lm.blocked)) if int(mapper.to_teacher(torch.tensor(i))) >= 0]
    with torch.no_grad():
        prompts = lm.embed_prompts(lm.encode_audio(result.batch.waveforms), result.batch.languages)
        states = lm.transcript_states(prompts, result.rollout.generation.ids)[result.student_rows]
        p_s = (states @ lm.head.T).double().masked_fill(lm.blocked, -math.inf).softmax(-1)[:, s_ids]
    p_t = result.teacher_view.logits.double().softmax(-1)[:, mapper.to_teacher(torch.tensor(s_ids))]
    p_t, p_s = (torch.cat([side, 1 - side.sum(-1, keepdim=True)], -1) for side in (p_t, p_s))
    mixed = (p_t + p_s) / 2
    expected = {
        "full_kl": p_t * (p_t / p_s).log(), "reverse_kl": p_s * (p_s / p_t).log(),
        "jsd": (p_t * (p_t / mixed).log() + p_s * (p_s / mixed).log()) / 2,
    }  # fmt: skip
    assert int(count) == len(p_t) > 3
    assert float(total.detach()) == pytest.approx(float(expected[name].sum()), rel=1e-4)
    total.backward()
    assert lm.head.grad.isfinite().all() and lm.head.grad.any()


def test_step_rejects_loss_with_unknown_needs():
    lm = trainable()
    one = opd(lm)
    one.loss.needs = "logits"
    with pytest.raises(UserError, match="UnionTopkKl.*'logits'"):
        Opd(one.teacher, one.mapper, one.loss, one.rollout, one.distill)


def test_sampled_reverse_kl_has_expectation_and_gradient_of_reverse_kl():
    """Each token in turn is the visited one, weighted by its probability."""
    student, teacher, _ = case(17, positions=1)
    sampled_loss, whole_leaf = create("loss", "sampled_reverse_kl", {}), student.clone().requires_grad_()
    mean, gradient = 0.0, torch.zeros_like(student)
    for token, weight in enumerate(student.softmax(-1)[0]):
        leaf, support = student.clone().requires_grad_(), everything(1)
        support.visited_student = support.visited_teacher = torch.tensor([token])
        total, count = sampled_loss(DenseView(leaf), DenseView(teacher), support)
        total.backward()
        assert int(count) == 1
        mean, gradient = mean + float(weight * total.detach()), gradient + weight * leaf.grad
        gap = (student.log_softmax(-1) - teacher.log_softmax(-1))[0, token]
        assert float(total.detach()) == pytest.approx(float(gap), abs=1e-5)
        direction = torch.nn.functional.one_hot(torch.tensor([token]), 17) - student.softmax(-1)
        torch.testing.assert_close(leaf.grad, gap * direction, atol=1e-5, rtol=1e-4)
    divergence = create("loss", "reverse_kl", {})(DenseView(whole_leaf), DenseView(teacher), everything(1))[0]
    divergence.backward()
    assert mean == pytest.approx(float(divergence.detach()), rel=1e-4)
    torch.testing.assert_close(gradient, whole_leaf.grad, atol=1e-5, rtol=1e-4)


def test_sampled_reverse_kl_skips_tokens_without_teacher_probability():
    student, table, support = named_case(18)
    support.visited_teacher = torch.tensor([-1, 0, 1, 2, 3, 4, 5, 6, -1])
    table[1, 0], table[2, 1] = -math.inf, math.nan
    leaf = student.clone().requires_grad_()
    total, count = create("loss", "sampled_reverse_kl", {})(DenseView(leaf), LogprobTable(table), support)
    total.backward()
    assert int(count) == 5 and leaf.grad[[0, 1, 2, 8]].eq(0).all() and leaf.grad[3:8].abs().sum(-1).gt(0).all()


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_ark_compat_mixes_logits_and_log_probabilities(tau):
    student, teacher, _ = case(19, vocab=13)
    _, _, support = named_case(19)
    teacher = 5 + 3 * teacher
    expected, count = 0.0, 0
    for at in range(9):
        places = support.valid[at].nonzero()[:, 0].tolist()
        raw, true = teacher[at].double(), teacher[at].double().log_softmax(0)
        ids = [int(support.teacher_ids[at, u]) for u in places]
        mixed = [float((raw if support.from_teacher[at, u] else true)[t]) for u, t in zip(places, ids)]
        if len(places) >= 2:
            target = (torch.tensor(mixed, dtype=torch.float64) / tau).log_softmax(0)
            log_p_s = (student[at, support.student_ids[at, places]].double() / tau).log_softmax(0)
            expected, count = expected + tau**2 * float((target.exp() * (target - log_p_s)).sum()), count + 1
    compat, paper = (create("loss", name, {"temperature": tau}) for name in ("ark_compat", "union_topk_kl"))
    total, positions = compat(DenseView(student), DenseView(teacher), support)
    assert int(positions) == count and float(total) == pytest.approx(expected, rel=1e-4)
    assert abs(float(paper(DenseView(student), DenseView(teacher), support)[0]) - expected) > 0.1


def test_ark_compat_without_raw_logits_raises():
    student, table, support = named_case(20)
    with pytest.raises(UserError, match="raw logits.*LogprobTable.*union_topk_kl"):
        create("loss", "ark_compat", {})(DenseView(student), LogprobTable(table), support)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_losses_lower_premature_stop(name, options):
    """The student stops with token 16, the teacher expects words. Only the student's top k names the stop."""
    scores, teacher_scores = torch.zeros(1, 17), torch.zeros(1, 17)
    scores[0, 16], teacher_scores[0, 3], teacher_scores[0, 5] = 4.0, 6.0, 5.0
    ids, stop = torch.tensor([[3, 5, 16, 7]]), torch.tensor([16])
    named = torch.tensor([[True, True, False, False]])
    support = Support(ids, ids, named | ~named, named, ~named, stop, stop)
    leaf = scores.clone().requires_grad_()
    total, count = create("loss", name, options)(DenseView(leaf), DenseView(teacher_scores), support)
    total.backward()
    assert int(count) == 1
    if name == "teacher_topk_kl" and not options.get("tail"):
        assert leaf.grad[0, 16] == 0  # see the docstring of TeacherTopkKl
    else:
        assert leaf.grad[0, 16] > 0.03


@pytest.mark.parametrize(("name", "options"), ALL)
def test_losses_of_nan_student_are_nan(name, options):
    student, table, support = named_case(22)
    student[3] = math.nan
    support.visited_teacher = support.visited_teacher.clamp(min=0)
    assert create("loss", name, options)(DenseView(student), DenseView(table), support)[0].isnan()


def test_tail_below_rounding_error_is_finite():
    """All mass is on the support, on one side or both. The loss is finite, and small where both agree."""
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
def test_confident_wrong_student_gets_exact_loss_and_gradient(name, gap, kind):
    """The student's tail is far below rounding error, the teacher's is not. Compare with float64."""
    states, weight, teacher_scores = torch.tensor([[1.0]]), torch.zeros(50, 1), torch.zeros(1, 50)
    weight[:4, 0], teacher_scores[0, :4] = gap - torch.arange(4.0), 2.0
    ids = torch.arange(4)[None]
    support = support_of(ids, ids, torch.ones(1, 4, dtype=torch.bool))
    leaf, exact = weight.requires_grad_(), weight.detach().double().requires_grad_()
    view = HeadView(states, leaf, torch.zeros(50, dtype=torch.bool)) if kind == "head" else DenseView(states @ leaf.T)
    total, _ = create("loss", name, {} if name in IN_FULL else WITH_TAIL)(view, DenseView(teacher_scores), support)
    total.backward()
    log_p_t, log_p_s = (
        torch.cat([part[:, :4], part[:, 4:].logsumexp(-1, keepdim=True)], -1)
        for part in (teacher_scores.double().log_softmax(-1), exact.T.log_softmax(-1))
    )
    log_a, log_b = (log_p_s, log_p_t) if "reverse" in name else (log_p_t, log_p_s)
    mixed = (log_a.exp() / 2 + log_b.exp() / 2).log() if name == "jsd" else log_b
    expected = (log_a.exp() * (log_a - mixed)).sum()
    if name == "jsd":
        expected = expected / 2 + (log_b.exp() * (log_b - mixed)).sum() / 2
    expected.backward()
    assert float(total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("union_topk_kl", {"temperature": 2.0, "tail": True}, "`loss.options.temperature` must be 1 if .*tail"),
        ("teacher_topk_kl", {"temperature": 0.0}, "`loss.options.temperature` must be from 0.01 to 100, got 0.0"),
        ("ark_compat", {"temperature": -1.0}, "`loss.options.temperature` must be from 0.01 to 100"),
        ("union_topk_kl", {"temperature": float("nan")}, "`loss.options.temperature` must be from 0.01 to 100"),
        ("union_topk_kl", {"temperature": 1e39}, "`loss.options.temperature` must be from 0.01 to 100"),
        ("jsd", {"beta": 0.0}, "`loss.options.beta` must be .*got 0.0.*full_kl"),
        ("jsd", {"beta": 1.0}, "`loss.options.beta` must be .*got 1.0.*reverse_kl"),
        ("jsd", {"betta": 0.5}, "betta.*beta"),
        ("full_kl", {"temperature": 2.0}, "temperature"),
    ],
)
def test_invalid_loss_options_raise(name, options, message):
    with pytest.raises(UserError, match=message):
        create("loss", name, options)
