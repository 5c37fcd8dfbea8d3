"""Logits formed and read: against float64 and torch.topk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.distributions import logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_logits_are_rounded_to_float32_only(dtype, monkeypatch):
    """Whatever the weights' dtype, under autocast too, and in parts that do not fit the vocabulary evenly."""
    monkeypatch.setattr(logits, "COLUMNS", 6)
    draw = torch.Generator().manual_seed(2)
    states, weight = (
        (scale * torch.randn(size, 6, generator=draw)).to(dtype).requires_grad_()
        for scale, size in ((20.0, 7), (1.0, 23))
    )
    expected = states.double() @ weight.double().T
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            got = logits.head_logits(states, weight)
        assert got.dtype == torch.float32 and not got.requires_grad
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)
    assert ((states @ weight.T).double() - expected).abs().max() > (0.01 if dtype != torch.float32 else -1)


def test_states_in_float32_may_meet_a_head_in_16_bits():
    """As under autocast, where a last layer norm gives float32."""
    draw = torch.Generator().manual_seed(3)
    states, weight = torch.randn(7, 6, generator=draw), torch.randn(23, 6, generator=draw).bfloat16()
    torch.testing.assert_close(logits.head_logits(states, weight), states @ weight.float().T)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 700), st.integers(1, 40), st.integers(0, 5), st.floats(0.0, 1.0))
def test_best_tokens_are_those_of_topk(seed, size, k, rows, missing):
    """Sizes around whole blocks, rows that are mostly or wholly blocked, k beyond what is left and beyond V."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.stack([torch.randperm(size, generator=draw).float() for _ in range(rows)] or [torch.zeros(0, size)])
    table = table.view(-1, size).masked_fill(torch.rand(rows, size, generator=draw) < missing, -torch.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "BLOCK", 8)
        ids, values = logits.best_tokens(table, k)
    expected = table.topk(min(k, size))
    assert torch.equal(values, expected.values)
    finite = values.isfinite()
    assert torch.equal(ids[finite], expected.indices[finite])  # the order of what is blocked is nobody's
    assert torch.equal(table.gather(-1, ids), values)
    assert all(len(set(row)) == len(row) for row in ids.tolist())


def test_best_tokens_of_the_true_vocabulary_and_of_ties():
    table = torch.randn(3, 151_936, generator=torch.Generator().manual_seed(0))
    table[0, [5, 127, 128, 151_935]] = 9.0  # equal, in three blocks
    ids, values = logits.best_tokens(table, 32)
    expected = table.topk(32)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids[1:], expected.indices[1:]) and set(ids[0, :4].tolist()) == {5, 127, 128, 151_935}


def test_best_tokens_keep_nan_in_sight_and_the_gradient():
    table = torch.randn(2, 1000)
    table[1, 700] = torch.nan
    assert logits.best_tokens(table, 3)[1][1].isnan().any()
    leaf = table[:1].clone().requires_grad_()
    logits.best_tokens(leaf, 3)[1].sum().backward()
    assert torch.equal(leaf.grad[0].nonzero()[:, 0], table[0].topk(3).indices.sort().values)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(1, 50), st.integers(1, 200))
def test_the_norm_is_that_of_float64_however_the_rows_are_parted(seed, rows, size, elements):
    draw = torch.Generator().manual_seed(seed)
    leaf = (20 * torch.randn(rows, size, generator=draw)).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(logits.ELEMENTS, "cpu", elements)
        norm = logits.log_norm(leaf)
    torch.testing.assert_close(norm.double(), leaf.double().logsumexp(-1, keepdim=True))
    norm.sum().backward()
    torch.testing.assert_close(leaf.grad, leaf.detach().softmax(-1))
