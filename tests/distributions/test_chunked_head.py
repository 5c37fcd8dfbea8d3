"""Sums over parts of the positions: numbers, gradients and memory against the whole table in float64."""

from __future__ import annotations

import pytest
import torch
from fsdp_roots import Root
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from arkasr.distributions import chunked_head, logits
from arkasr.distributions.views import HeadView

H, V = 4, 13


def case(seed, positions=9):
    """States [P, H], weight [V, H] and targets [P]; a position whose target is -1 does not count."""
    draw = torch.Generator().manual_seed(seed)
    states, weight = torch.randn(positions, H, generator=draw), torch.randn(V, H, generator=draw)
    return states, weight, torch.randint(-1, V, (positions,), generator=draw)


def cross_entropy(scores, targets):
    """Sum and count over the positions that have a target."""
    counted = targets >= 0
    chosen = scores.log_softmax(-1)[counted].gather(-1, targets[counted][:, None])
    return -chosen.sum(), counted.sum()


def exact(states, weight, targets, upstream=1.0):
    """The same in float64 over the whole table: total, count and both gradients."""
    s, w = states.double().requires_grad_(), weight.double().requires_grad_()
    total, count = cross_entropy(s @ w.T, targets)
    (upstream * total).backward()
    return total.detach(), count, s.grad, w.grad


@pytest.fixture
def parts(monkeypatch):
    """Three positions' scores at one time, read two at a time."""
    monkeypatch.setattr(chunked_head, "ROWS", 3)
    monkeypatch.setitem(logits.ELEMENTS, "cpu", 2 * V)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(1, 5), st.integers(1, 4 * V), st.floats(-3, 3))
def test_sums_and_gradients_are_those_of_the_whole(seed, positions, rows, elements, upstream):
    states, weight, targets = case(seed, positions)
    s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_head, "ROWS", rows)
        patch.setitem(logits.ELEMENTS, "cpu", elements)
        total, count = chunked_head.sum_in_parts(cross_entropy, s, w, targets)
    (upstream * total).backward()
    want = exact(states, weight, targets, upstream)
    assert count == want[1] and count.dtype == torch.int64 and total.dtype == torch.float32
    for got, expected in zip((total.detach(), s.grad, w.grad), (want[0], *want[2:])):
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_what_no_position_counts_for_has_a_gradient_of_zero_and_not_none(parts):
    states, weight, targets = case(0)
    s, w = states.requires_grad_(), weight.requires_grad_()
    total, count = chunked_head.sum_in_parts(cross_entropy, s, w, torch.full_like(targets, -1))
    total.backward()
    assert total == 0 and count == 0 and not s.grad.any() and not w.grad.any()


def test_a_read_without_gradient_pulls_nothing(parts):
    states, weight, targets = case(0)
    w = weight.requires_grad_()
    chunked_head.sum_in_parts(lambda scores, t: (scores.detach().sum(), (t >= 0).sum()), states, w, targets)[
        0
    ].backward()
    assert not w.grad.any()


@pytest.mark.parametrize("frozen", ["states", "weight", "both"])
def test_only_what_takes_a_gradient_gets_one(frozen, parts):
    states, weight, targets = case(1)
    want = exact(states, weight, targets)
    states.requires_grad_(frozen == "weight"), weight.requires_grad_(frozen == "states")
    total, _ = chunked_head.sum_in_parts(cross_entropy, states, weight, targets)
    assert total.requires_grad == (frozen != "both")
    torch.testing.assert_close(total.detach().double(), want[0])
    if frozen != "both":
        total.backward()
        got, expected = (states.grad, want[2]) if frozen == "weight" else (weight.grad, want[3])
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
    assert (states.grad is None, weight.grad is None) == (frozen != "weight", frozen != "states")


def test_no_grad_reads_without_a_gradient(parts):
    states, weight, targets = case(2)
    asked = []

    def read(scores, some):
        asked.append(scores.requires_grad or torch.is_grad_enabled())
        return cross_entropy(scores, some)

    with torch.no_grad():
        total, _ = chunked_head.sum_in_parts(read, states.requires_grad_(), weight.requires_grad_(), targets)
    assert asked == [False] * 6 and not total.requires_grad


def test_a_second_backward_is_refused_and_not_wrong(parts):
    states, weight, targets = case(3)
    total, _ = chunked_head.sum_in_parts(cross_entropy, states.requires_grad_(), weight, targets)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        total.backward()


def test_scores_are_formed_once_and_three_rows_at_a_time(parts, monkeypatch):
    made, plain = [], chunked_head.full_scores
    monkeypatch.setattr(chunked_head, "full_scores", lambda *of: made.append(len(of[0])) or plain(*of))
    states, weight, targets = case(4, positions=7)
    chunked_head.sum_in_parts(cross_entropy, states.requires_grad_(), weight.requires_grad_(), targets)[0].backward()
    assert made == [3, 3, 1]


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_weights_give_float32_sums_and_their_own_gradients(autocast, parts):
    """float32 weights under autocast, and bfloat16 weights without: the arithmetic is float32."""
    states, weight, targets = (part.bfloat16() if part.is_floating_point() else part for part in case(5))
    dtype = torch.float32 if autocast else torch.bfloat16
    s, w = states.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = chunked_head.sum_in_parts(cross_entropy, s, w, targets)
    total.backward()
    want = exact(states, weight, targets)
    assert total.dtype == torch.float32 and s.grad.dtype == w.grad.dtype == dtype
    torch.testing.assert_close(total.detach().double(), want[0], atol=1e-5, rtol=1e-5)
    tolerance = 1e-4 if autocast else 1e-2  # the gradient itself is rounded to bfloat16, once
    for got, expected in zip((s.grad, w.grad), want[2:]):
        torch.testing.assert_close(got.double(), expected, atol=tolerance * 5, rtol=tolerance)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("reshard", [False, True])
def test_a_sharded_tied_head_gets_the_same_gradient(reshard, recomputed, parts, tmp_path):
    _, weight, targets = case(6)
    tokens = torch.randint(V, (9,))

    def work(root):
        def body(table):
            return torch.nn.functional.embedding(tokens, table).tanh()

        states = checkpoint(body, root.weight, use_reentrant=False) if recomputed else body(root.weight)
        view = HeadView(states, root.weight, torch.zeros(V, dtype=torch.bool))
        return view.sum_in_parts(lambda part, some: cross_entropy(part.logits, some), targets)[0]

    plain = Root(weight.double())
    cross_entropy(torch.nn.functional.embedding(tokens, plain.weight).tanh() @ plain.weight.T, targets)[0].backward()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        sharded = fully_shard(Root(weight), mesh=mesh, reshard_after_forward=reshard)
        sharded(work).backward()
        found = sharded.weight.grad.full_tensor().double()
        torch.testing.assert_close(found, plain.weight.grad, atol=1e-5, rtol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
