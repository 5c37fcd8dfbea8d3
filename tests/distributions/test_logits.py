"""Computing and reading logits, compared with float64 and torch.topk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arkasr.distributions import logits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_head_logits_are_rounded_only_to_float32(dtype, monkeypatch):
    """Cover all weight dtypes, autocast, and column blocks that do not divide the vocabulary evenly."""
    monkeypatch.setattr(logits, "COLUMNS", 6)
    draw = torch.Generator().manual_seed(2)
    states, weight = (
        (scale * torch.randn(size, 6, generator=draw)).to(dtype).requires_grad_()
        for scale, size in ((20.0, 7), (1.0, 23))
    )
    expected = states.double() @ weight.double().T
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            actual = logits.head_logits(states, weight)
        assert actual.dtype == torch.float32 and not actual.requires_grad
        torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)
    assert ((states @ weight.T).double() - expected).abs().max() > (0.01 if dtype != torch.float32 else -1)


def test_head_logits_accepts_float32_states_with_16_bit_head():
    """This happens under autocast, where the last layer norm returns float32."""
    draw = torch.Generator().manual_seed(3)
    states, weight = torch.randn(7, 6, generator=draw), torch.randn(23, 6, generator=draw).bfloat16()
    torch.testing.assert_close(logits.head_logits(states, weight), states @ weight.float().T)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 700), st.integers(1, 40), st.integers(0, 5), st.floats(0.0, 1.0))
def test_best_tokens_equal_topk(seed, size, k, rows, missing):
    """Cover sizes around whole blocks, rows that are mostly or fully blocked, and k above V."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.stack([torch.randperm(size, generator=draw).float() for _ in range(rows)] or [torch.zeros(0, size)])
    table = table.view(-1, size).masked_fill(torch.rand(rows, size, generator=draw) < missing, -torch.inf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logits, "BLOCK", 8)
        ids, values = logits.best_tokens(table, k)
    expected = table.topk(min(k, size))
    assert torch.equal(values, expected.values)
    finite = values.isfinite()
    assert torch.equal(ids[finite], expected.indices[finite])  # blocked tokens have no defined order
    assert torch.equal(table.gather(-1, ids), values)
    assert all(len(set(row)) == len(row) for row in ids.tolist())


def test_best_tokens_with_real_vocabulary_size_and_ties():
    table = torch.randn(3, 151_936, generator=torch.Generator().manual_seed(0))
    table[0, [5, 127, 128, 151_935]] = 9.0  # equal values in three blocks
    ids, values = logits.best_tokens(table, 32)
    expected = table.topk(32)
    assert torch.equal(values, expected.values)
    assert torch.equal(ids[1:], expected.indices[1:]) and set(ids[0, :4].tolist()) == {5, 127, 128, 151_935}


def test_best_tokens_return_nan_and_pass_gradient():
    table = torch.randn(2, 1000)
    table[1, 700] = torch.nan
    assert logits.best_tokens(table, 3)[1][1].isnan().any()
    leaf = table[:1].clone().requires_grad_()
    logits.best_tokens(leaf, 3)[1].sum().backward()
    assert torch.equal(leaf.grad[0].nonzero()[:, 0], table[0].topk(3).indices.sort().values)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(1, 50), st.integers(1, 200))
def test_log_norm_matches_float64_for_any_row_spans(seed, rows, size, elements):
    draw = torch.Generator().manual_seed(seed)
    leaf = (20 * torch.randn(rows, size, generator=draw)).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(logits.ELEMENTS, "cpu", elements)
        norm = logits.log_norm(leaf)
    torch.testing.assert_close(norm.double(), leaf.double().logsumexp(-1, keepdim=True))
    norm.sum().backward()
    torch.testing.assert_close(leaf.grad, leaf.detach().softmax(-1))
