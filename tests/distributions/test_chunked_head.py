"""Sums computed for a few positions at a time: values, gradients and memory against all logits in float64."""

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
    """Return states [P, H], weight [V, H] and targets [P]. Positions with target -1 do not count."""
    draw = torch.Generator().manual_seed(seed)
    states, weight = torch.randn(positions, H, generator=draw), torch.randn(V, H, generator=draw)
    return states, weight, torch.randint(-1, V, (positions,), generator=draw)


def cross_entropy(scores, targets):
    """Return sum and count over the positions that have a target."""
    counted = targets >= 0
    chosen = scores.log_softmax(-1)[counted].gather(-1, targets[counted][:, None])
    return -chosen.sum(), counted.sum()


def reference_cross_entropy(states, weight, targets, upstream=1.0):
    """Return total, count and both gradients, in float64 over all logits."""
    s, w = states.double().requires_grad_(), weight.double().requires_grad_()
    total, count = cross_entropy(s @ w.T, targets)
    (upstream * total).backward()
    return total.detach(), count, s.grad, w.grad


@pytest.fixture
def parts(monkeypatch):
    """Hold the logits of three positions at one time, and read two at a time."""
    monkeypatch.setattr(chunked_head, "ROWS", 3)
    monkeypatch.setitem(logits.ELEMENTS, "cpu", 2 * V)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(1, 5), st.integers(1, 4 * V), st.floats(-3, 3))
def test_sum_in_parts_matches_float64_values_and_gradients(seed, positions, rows, elements, upstream):
    states, weight, targets = case(seed, positions)
    s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_head, "ROWS", rows)
        patch.setitem(logits.ELEMENTS, "cpu", elements)
        total, count = chunked_head.sum_in_parts(cross_entropy, s, w, targets)
    (upstream * total).backward()
    expected = reference_cross_entropy(states, weight, targets, upstream)
    assert count == expected[1] and count.dtype == torch.int64 and total.dtype == torch.float32
    for actual, wanted in zip((total.detach(), s.grad, w.grad), (expected[0], *expected[2:])):
        torch.testing.assert_close(actual.double(), wanted, atol=1e-5, rtol=1e-5)


def test_sum_in_parts_without_counted_positions_has_zero_gradient_not_none(parts):
    states, weight, targets = case(0)
    s, w = states.requires_grad_(), weight.requires_grad_()
    total, count = chunked_head.sum_in_parts(cross_entropy, s, w, torch.full_like(targets, -1))
    total.backward()
    assert total == 0 and count == 0 and not s.grad.any() and not w.grad.any()


def test_sum_in_parts_of_detached_scores_has_zero_gradient(parts):
    states, weight, targets = case(0)
    w = weight.requires_grad_()
    chunked_head.sum_in_parts(lambda scores, t: (scores.detach().sum(), (t >= 0).sum()), states, w, targets)[
        0
    ].backward()
    assert not w.grad.any()


@pytest.mark.parametrize("frozen", ["states", "weight", "both"])
def test_sum_in_parts_gives_gradient_only_where_required(frozen, parts):
    states, weight, targets = case(1)
    expected = reference_cross_entropy(states, weight, targets)
    states.requires_grad_(frozen == "weight"), weight.requires_grad_(frozen == "states")
    total, _ = chunked_head.sum_in_parts(cross_entropy, states, weight, targets)
    assert total.requires_grad == (frozen != "both")
    torch.testing.assert_close(total.detach().double(), expected[0])
    if frozen != "both":
        total.backward()
        actual, wanted = (states.grad, expected[2]) if frozen == "weight" else (weight.grad, expected[3])
        torch.testing.assert_close(actual.double(), wanted, atol=1e-5, rtol=1e-5)
    assert (states.grad is None, weight.grad is None) == (frozen != "weight", frozen != "states")


def test_sum_in_parts_under_no_grad_reads_without_gradient(parts):
    states, weight, targets = case(2)
    wants_gradient = []

    def read(scores, part_targets):
        wants_gradient.append(scores.requires_grad or torch.is_grad_enabled())
        return cross_entropy(scores, part_targets)

    with torch.no_grad():
        total, _ = chunked_head.sum_in_parts(read, states.requires_grad_(), weight.requires_grad_(), targets)
    assert wants_gradient == [False] * 6 and not total.requires_grad


def test_sum_in_parts_rejects_second_backward(parts):
    states, weight, targets = case(3)
    total, _ = chunked_head.sum_in_parts(cross_entropy, states.requires_grad_(), weight, targets)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        total.backward()


def test_sum_in_parts_computes_scores_once_in_blocks_of_rows(parts, monkeypatch):
    row_counts, full_scores = [], chunked_head.full_scores
    monkeypatch.setattr(
        chunked_head, "full_scores", lambda *args: row_counts.append(len(args[0])) or full_scores(*args)
    )
    states, weight, targets = case(4, positions=7)
    chunked_head.sum_in_parts(cross_entropy, states.requires_grad_(), weight.requires_grad_(), targets)[0].backward()
    assert row_counts == [3, 3, 1]


@pytest.mark.parametrize("autocast", [False, True])
def test_sum_in_parts_with_half_precision_returns_float32_sum_and_gradients_in_own_dtype(autocast, parts):
    """Arithmetic is float32 for float32 weights under autocast and for bfloat16 weights without it."""
    states, weight, targets = (part.bfloat16() if part.is_floating_point() else part for part in case(5))
    dtype = torch.float32 if autocast else torch.bfloat16
    s, w = states.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        total, _ = chunked_head.sum_in_parts(cross_entropy, s, w, targets)
    total.backward()
    expected = reference_cross_entropy(states, weight, targets)
    assert total.dtype == torch.float32 and s.grad.dtype == w.grad.dtype == dtype
    torch.testing.assert_close(total.detach().double(), expected[0], atol=1e-5, rtol=1e-5)
    tolerance = 1e-4 if autocast else 1e-2  # the gradient itself is rounded to bfloat16 once
    for actual, wanted in zip((s.grad, w.grad), expected[2:]):
        torch.testing.assert_close(actual.double(), wanted, atol=tolerance * 5, rtol=tolerance)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("reshard", [False, True])
def test_sum_in_parts_with_sharded_tied_head_has_same_gradient(reshard, recomputed, parts, tmp_path):
    _, weight, targets = case(6)
    tokens = torch.randint(V, (9,))

    def work(root):
        def body(table):
            return torch.nn.functional.embedding(tokens, table).tanh()

        states = checkpoint(body, root.weight, use_reentrant=False) if recomputed else body(root.weight)
        view = HeadView(states, root.weight, torch.zeros(V, dtype=torch.bool))
        return view.sum_in_parts(lambda part, part_targets: cross_entropy(part.logits, part_targets), targets)[0]

    plain = Root(weight.double())
    cross_entropy(torch.nn.functional.embedding(tokens, plain.weight).tanh() @ plain.weight.T, targets)[0].backward()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        sharded = fully_shard(Root(weight), mesh=mesh, reshard_after_forward=reshard)
        sharded(work).backward()
        actual = sharded.weight.grad.full_tensor().double()
        torch.testing.assert_close(actual, plain.weight.grad, atol=1e-5, rtol=1e-5)
    finally:
        torch.distributed.destroy_process_group()
