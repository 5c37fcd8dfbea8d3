"""The two views against float64 log-softmax, numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.interfaces import DistributionView, StudentView
from arkasr.views import DenseView, HeadView

P, V, H = 7, 23, 5


def case(seed, scale=2.0):
    """Random states [P, H], head [V, H], blocked [V] and ids [P, 4] that may be blocked."""
    made = torch.Generator().manual_seed(seed)
    states = scale * torch.randn(P, H, generator=made)
    weight = torch.randn(V, H, generator=made)
    blocked = torch.rand(V, generator=made) < 0.3
    blocked[seed % V] = False
    return states, weight, blocked, torch.randint(0, V, (P, 4), generator=made)


def exact(states, weight, blocked):
    """Float64 log-probabilities [P, V] over the ids that are not blocked."""
    logits = (states.double() @ weight.double().T).masked_fill(blocked, -torch.inf)
    return logits.log_softmax(-1)


def both(states, weight, blocked):
    return {"head": HeadView(states, weight, blocked), "dense": DenseView(states @ weight.T, blocked)}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_numbers_are_those_of_a_float64_log_softmax(seed):
    states, weight, blocked, ids = case(seed)
    expected = exact(states, weight, blocked)
    k = int((~blocked).sum())
    for view in both(states, weight, blocked).values():
        got = view.logprobs_at(torch.arange(V).expand(P, V))
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.exp().sum(-1), torch.ones(P))
        assert got[:, blocked].eq(-torch.inf).all()
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
def test_gradients_are_those_of_float64(kind, what):
    states, weight, blocked, ids = case(11)
    ids = ids.where(~blocked[ids], 11)
    pull = torch.randn(P, 4, generator=torch.Generator().manual_seed(0))

    def gradients(dtype):
        s, w = states.to(dtype, copy=True).requires_grad_(), weight.to(dtype, copy=True).requires_grad_()
        if dtype == torch.float32:
            view = both(s, w, blocked)[kind]
            made = view.entropy()[:, None] if what == "entropy" else getattr(view, what)(ids)
        else:
            logits = s @ w.T
            free = exact(s, w, blocked)[:, ~blocked]
            entropy = -(free.exp() * free).sum(-1, keepdim=True)
            options = {"entropy": entropy, "scores_at": logits.gather(-1, ids)}
            made = options.get(what, exact(s, w, blocked).gather(-1, ids))
        (made * pull[:, : made.shape[1]].to(dtype)).sum().backward()
        return s.grad, w.grad

    for got, expected in zip(gradients(torch.float32), gradients(torch.float64)):
        assert got.abs().sum() > 0
        torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-4)


def test_views_agree_with_each_other_at_some_rows():
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


def test_topk_is_at_most_the_vocabulary():
    view = DenseView(torch.randn(2, 5))
    assert view.topk(9)[0].shape == (2, 5)


def test_half_precision_logits_are_read_in_float32():
    logits = torch.randn(3, 40).bfloat16()
    view = DenseView(logits)
    expected = logits.double().log_softmax(-1)
    got = view.logprobs_at(torch.arange(40).expand(3, 40))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=0)
    head = HeadView(torch.randn(3, 8).bfloat16(), torch.randn(40, 8).bfloat16(), torch.zeros(40, dtype=torch.bool))
    scores = head.scores_at(torch.arange(40).expand(3, 40))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), head.states.double() @ head.weight.double().T, atol=1e-4, rtol=0)


def test_one_certain_token_has_no_entropy():
    logits = torch.full((1, 6), -torch.inf)
    logits[0, 2] = 3.0
    view = DenseView(logits)
    assert view.entropy().item() == 0.0 and view.topk(1)[0].item() == 2
    assert view.logprobs_at(torch.tensor([[2, 3]])).tolist() == [[0.0, -torch.inf]]


def test_both_fulfil_the_protocols():
    for view in both(*case(0)[:3]).values():
        assert isinstance(view, DistributionView) and isinstance(view, StudentView)
