"""DenseView and HeadView compared with a float64 log-softmax: values and gradients."""

from __future__ import annotations

import pytest
import torch
from fsdp_roots import Root
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from arkasr.distributions import chunked_head
from arkasr.distributions.views import DenseView, HeadView
from arkasr.interfaces import DistributionView, StudentView

P, V, H = 7, 23, 5


def case(seed, scale=2.0):
    """Return random states [P, H], head [V, H], blocked [V] and ids [P, 4] that may be blocked."""
    draw = torch.Generator().manual_seed(seed)
    states = scale * torch.randn(P, H, generator=draw)
    weight = torch.randn(V, H, generator=draw)
    blocked = torch.rand(V, generator=draw) < 0.3
    blocked[seed % V] = False
    return states, weight, blocked, torch.randint(0, V, (P, 4), generator=draw)


def reference_logprobs(states, weight, blocked):
    """Return float64 log-probabilities [P, V] over the ids that are not blocked."""
    logits = (states.double() @ weight.double().T).masked_fill(blocked, -torch.inf)
    return logits.log_softmax(-1)


def both(states, weight, blocked):
    return {"head": HeadView(states, weight, blocked), "dense": DenseView(states @ weight.T, blocked)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_views_match_float64_log_softmax(seed):
    states, weight, blocked, ids = case(seed)
    expected = reference_logprobs(states, weight, blocked)
    k = int((~blocked).sum())
    for view in both(states, weight, blocked).values():
        actual = view.logprobs_at(torch.arange(V).expand(P, V))
        torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(actual.exp().sum(-1), torch.ones(P))
        assert actual[:, blocked].eq(-torch.inf).all()
        picked, values = view.topk(k)
        assert picked.shape == (P, k) and picked.dtype == torch.int64 and not blocked[picked].any()
        torch.testing.assert_close(values.double(), expected.sort(-1, descending=True).values[:, :k], atol=1e-5, rtol=0)
        torch.testing.assert_close(values.double(), expected.gather(-1, picked), atol=1e-5, rtol=0)
        scores = view.scores_at(ids)
        shift = scores.double() - expected.gather(-1, ids)
        finite = ~blocked[ids]
        assert scores[~finite].eq(-torch.inf).all()
        for row, kept in zip(shift, finite):
            assert row[kept].numel() == 0 or float(row[kept].max() - row[kept].min()) < 1e-4
        entropy = torch.special.entr(expected.exp()).sum(-1)
        torch.testing.assert_close(view.entropy().double(), entropy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("what", ["logprobs_at", "scores_at", "entropy"])
@pytest.mark.parametrize("kind", ["head", "dense"])
def test_view_gradients_match_float64(kind, what):
    states, weight, blocked, ids = case(11)
    ids = ids.where(~blocked[ids], 11)
    upstream = torch.randn(P, 4, generator=torch.Generator().manual_seed(0))

    def gradients(dtype):
        s, w = states.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
        if dtype == torch.float32:
            view = both(s, w, blocked)[kind]
            values = view.entropy()[:, None] if what == "entropy" else getattr(view, what)(ids)
        else:
            logits = s @ w.T
            free = reference_logprobs(s, w, blocked)[:, ~blocked]
            entropy = -(free.exp() * free).sum(-1, keepdim=True)
            options = {"entropy": entropy, "scores_at": logits.gather(-1, ids)}
            values = options.get(what, reference_logprobs(s, w, blocked).gather(-1, ids))
        (values * upstream[:, : values.shape[1]].to(dtype)).sum().backward()
        return s.grad, w.grad

    for actual, expected in zip(gradients(torch.float32), gradients(torch.float64)):
        assert actual.abs().sum() > 0
        torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=1e-4)


def test_at_selects_rows_for_both_views():
    states, weight, blocked, ids = case(3)
    rows = torch.tensor([5, 0, 5, 2])
    for view in both(states, weight, blocked).values():
        part = view.at(rows)
        assert part.vocab_size == view.vocab_size == V
        torch.testing.assert_close(part.logprobs_at(ids[rows]), view.logprobs_at(ids)[rows], atol=1e-6, rtol=0)
        torch.testing.assert_close(part.scores_at(ids[rows]), view.scores_at(ids)[rows], atol=1e-6, rtol=0)
        torch.testing.assert_close(part.entropy(), view.entropy()[rows], atol=1e-6, rtol=0)
        assert torch.equal(part.topk(3)[0], view.topk(3)[0][rows])
        nothing = view.at(rows[:0])
        assert nothing.topk(3)[0].shape == (0, 3) and nothing.logprobs_at(ids[:0]).shape == (0, 4)


def test_topk_returns_at_most_vocabulary_size():
    view = DenseView(torch.randn(2, 5))
    assert view.topk(9)[0].shape == (2, 5)


def test_half_precision_logits_are_converted_to_float32():
    logits = torch.randn(3, 40).bfloat16()
    view = DenseView(logits)
    expected = logits.double().log_softmax(-1)
    actual = view.logprobs_at(torch.arange(40).expand(3, 40))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=0)
    head = HeadView(torch.randn(3, 8).bfloat16(), torch.randn(40, 8).bfloat16(), torch.zeros(40, dtype=torch.bool))
    scores = head.scores_at(torch.arange(40).expand(3, 40))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), head.states.double() @ head.weight.double().T, atol=1e-4, rtol=0)


def test_entropy_of_certain_token_is_zero():
    logits = torch.full((1, 6), -torch.inf)
    logits[0, 2] = 3.0
    view = DenseView(logits)
    assert view.entropy().item() == 0.0 and view.topk(1)[0].item() == 2
    assert view.logprobs_at(torch.tensor([[2, 3]])).tolist() == [[0.0, -torch.inf]]


def test_views_implement_protocols():
    for view in both(*case(0)[:3]).values():
        assert isinstance(view, DistributionView) and isinstance(view, StudentView)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns, also in the backward pass."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


METHODS = {
    "scores_at": lambda view, ids: view.scores_at(ids),
    "logprobs_at": lambda view, ids: view.logprobs_at(ids),
    "topk": lambda view, ids: view.topk(4)[1],
    "entropy": lambda view, ids: view.entropy()[:, None],
}


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize(("rows", "gathered"), [(3, 45), (1, 1), (7, 10**6)])
def test_head_view_in_parts_matches_dense_view(what, rows, gathered, monkeypatch):
    monkeypatch.setattr(chunked_head, "ROWS", rows)
    monkeypatch.setattr(chunked_head, "GATHERED", gathered)
    states, weight, blocked, ids = case(12)
    ids = ids.where(~blocked[ids], 12)
    upstream = torch.randn(P, 4, generator=torch.Generator().manual_seed(0))
    results = []
    for kind in ("head", "dense"):
        s, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        values = METHODS[what](both(s, w, blocked)[kind], ids)
        (values * upstream[:, : values.shape[1]]).sum().backward()
        results.append((values.detach(), s.grad, w.grad))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", METHODS)
def test_head_view_never_allocates_all_logits(what, monkeypatch):
    """With 40 positions and 60 tokens, DenseView allocates [40, 60]. Gathering all pairs would allocate [40, 30, 5]."""
    monkeypatch.setattr(chunked_head, "ROWS", 4)
    monkeypatch.setattr(chunked_head, "GATHERED", 300)
    states, weight = torch.randn(40, 5, requires_grad=True), torch.randn(60, 5, requires_grad=True)
    ids = torch.randint(60, (40, 30))
    with LargestTensor() as largest:
        METHODS[what](HeadView(states, weight, torch.zeros(60, dtype=torch.bool)), ids).sum().backward()
    assert largest.elements <= 40 * 30
    with LargestTensor() as dense:
        METHODS[what](DenseView(states @ weight.T), ids).sum().backward()
    assert dense.elements >= 40 * 60


def test_tied_head_gets_gradients_of_input_and_output():
    """The weight is both the input embedding and the output head."""
    weight, blocked = torch.randn(V, H), torch.zeros(V, dtype=torch.bool)
    tokens, ids = torch.randint(V, (P,)), torch.randint(V, (P, 4))
    grads = []
    for kind in ("head", "dense"):
        w = weight.clone().requires_grad_()
        view = both(torch.nn.functional.embedding(tokens, w).tanh(), w, blocked)[kind]
        (view.scores_at(ids).square().sum() + view.logprobs_at(ids).sum()).backward()
        grads.append(w.grad)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", ["states", "weight", "both"])
def test_scores_at_gives_gradient_only_where_required(frozen):
    states, weight, _, ids = case(13)
    states.requires_grad_(frozen == "weight"), weight.requires_grad_(frozen == "states")
    scores = HeadView(states, weight, torch.zeros(V, dtype=torch.bool)).scores_at(ids)
    assert scores.requires_grad == (frozen != "both")
    if frozen != "both":
        scores.sum().backward()
    assert (states.grad is None, weight.grad is None) == (frozen != "weight", frozen != "states")


@pytest.mark.parametrize("what", METHODS)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_weights_return_float32_values_and_gradients_in_own_dtype(what, autocast):
    """Arithmetic is float32 for float32 weights under autocast and for bfloat16 weights without it."""
    states, weight, _, ids = case(14)
    states, weight, none = states.bfloat16(), weight.bfloat16(), torch.zeros(V, dtype=torch.bool)
    dtype = torch.float32 if autocast else torch.bfloat16
    s, w = states.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
    leaves = states.double().requires_grad_(), weight.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        values = METHODS[what](HeadView(s, w, none), ids)
    values.sum().backward()
    logits = leaves[0] @ leaves[1].T
    logprobs = logits.log_softmax(-1)
    expected = {
        "scores_at": logits.gather(-1, ids),
        "logprobs_at": logprobs.gather(-1, ids),
        "topk": logprobs.topk(4).values,
        "entropy": torch.special.entr(logprobs.exp()).sum(-1, keepdim=True),
    }[what]
    expected.sum().backward()
    assert values.dtype == torch.float32 and s.grad.dtype == w.grad.dtype == dtype
    torch.testing.assert_close(values.detach().double(), expected.detach(), atol=1e-4, rtol=1e-4)
    tolerance = 1e-4 if autocast else 1e-2  # the gradient itself is rounded to bfloat16 once
    for actual, leaf in zip((s.grad, w.grad), leaves):
        torch.testing.assert_close(actual.double(), leaf.grad, atol=tolerance * 5, rtol=tolerance)


@pytest.mark.parametrize("reshard", [False, True])
@pytest.mark.parametrize("what", METHODS)
def test_sharded_head_has_same_gradient(what, reshard, tmp_path, monkeypatch):
    """FSDP2 on one rank. Backward computes the parts again after the weight was freed and gathered again."""
    monkeypatch.setattr(chunked_head, "ROWS", 3)
    weight, tokens, ids = torch.randn(V, H), torch.randint(V, (P,)), torch.randint(V, (P, 4))

    def work(root):
        states = torch.nn.functional.embedding(tokens, root.weight).tanh()
        return METHODS[what](HeadView(states, root.weight, torch.zeros(V, dtype=torch.bool)), ids).square().sum()

    plain = Root(weight)
    plain(work).backward()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        sharded = fully_shard(Root(weight), mesh=mesh, reshard_after_forward=reshard)
        sharded(work).backward()
        torch.testing.assert_close(sharded.weight.grad.full_tensor(), plain.weight.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_at_consecutive_rows_does_not_copy():
    view = DenseView(torch.randn(4, 7))
    for rows in ([0, 1, 2, 3], [1, 2], [3], []):
        part = view.at(torch.tensor(rows, dtype=torch.long))
        assert torch.equal(part.logits, view.logits[rows]) and torch.equal(part.log_norm, view.log_norm[rows])
        assert part.logits.untyped_storage().data_ptr() == view.logits.untyped_storage().data_ptr()
    for rows in ([0, 1, 3, 2], [0, 1, 2, 2], [3, 2], [1, 3], [0, 1, 2, 3, 3]):
        assert torch.equal(view.at(torch.tensor(rows)).logits, view.logits[rows])
