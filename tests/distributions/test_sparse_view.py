"""SparseView returns its known tokens, requests unknown ones once, and keeps the answers."""

from __future__ import annotations

import pytest
import torch

import arkasr
from arkasr.errors import UserError
from arkasr.testing.views import check_view

V = 40


def logprobs(rows=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(rows, V, generator=draw)).log_softmax(-1)


class ExactSource:
    """Returns every log-probability and records the requests."""

    def __init__(self, truth):
        self.truth, self.requests = truth, []

    def __call__(self, rows, ids):
        self.requests.append(
            [(row, [i for i in row_ids if i >= 0]) for row, row_ids in zip(rows.tolist(), ids.tolist())]
        )
        return self.truth[rows].gather(1, ids.clamp(min=0))


def sparse(truth, k=8, exact=None, shuffled=True, cut=False):
    """Make a view of the k best of each row, in any order. `cut` removes the last one from every other row."""
    best = truth.topk(k)
    ids, values = best.indices.clone(), best.values.clone()
    if cut:
        ids[::2, -1], values[::2, -1] = -1, -torch.inf
    order = torch.randperm(k, generator=torch.Generator().manual_seed(1)) if shuffled else torch.arange(k)
    return arkasr.SparseView(ids[:, order], values[:, order], V, exact)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_sparse_view_passes_view_check(known, cut, rows):
    truth = logprobs(rows)
    check_view("check_view", sparse(truth, exact=ExactSource(truth) if known else None, cut=cut), rows, 1e-4)


def test_topk_returns_best_tokens():
    truth = logprobs()
    ids, values = sparse(truth).topk(3)
    assert torch.equal(ids, truth.topk(3).indices) and torch.equal(values, truth.topk(3).values)


def test_logprobs_at_unknown_tokens_are_minus_infinity():
    truth = logprobs()
    found = sparse(truth).logprobs_at(torch.arange(V).expand(5, -1))
    known = torch.zeros(5, V, dtype=torch.bool).scatter(1, truth.topk(8).indices, True)
    assert torch.equal(found, truth.masked_fill(~known, -torch.inf))
    assert sparse(truth).entropy() is None


def test_logprobs_at_does_not_request_ids_outside_vocabulary():
    source = ExactSource(logprobs())
    view = sparse(source.truth, exact=source)
    assert torch.equal(view.logprobs_at(torch.tensor([[-1, V]] * 5)), torch.full((5, 2), -torch.inf))
    assert source.requests == []


def test_topk_above_known_tokens_raises_with_config_keys():
    with pytest.raises(
        UserError, match=r"only 8 tokens .* top 9 .*distill\.top_k.* to 8, .*teacher\.options\.top_k.* on a server"
    ):
        sparse(logprobs()).topk(9)
    with pytest.raises(UserError, match="holds only 7 tokens"):
        sparse(logprobs(), cut=True).topk(8)


def test_logprobs_at_returns_exact_values_with_one_request():
    source = ExactSource(logprobs())
    view = sparse(source.truth, exact=source)
    ids = torch.tensor([[0, 5, 5, 39], [1, 2, 3, 4], [7, 7, 7, 7], [0, 1, 2, 3], [30, 31, 32, 33]])
    assert torch.equal(view.logprobs_at(ids), source.truth.gather(1, ids))
    [rows] = source.requests
    best = source.truth.topk(8).indices.tolist()
    expected = {row: sorted(set(row_ids) - set(best[row])) for row, row_ids in enumerate(ids.tolist())}
    assert dict(rows) == {row: row_ids for row, row_ids in expected.items() if row_ids} and len(rows) > 2
    assert torch.equal(view.logprobs_at(ids.flip(1)), source.truth.gather(1, ids.flip(1)))
    assert len(source.requests) == 1


def test_logprobs_at_does_not_request_known_tokens():
    source = ExactSource(logprobs())
    view = sparse(source.truth, exact=source)
    ids, values = view.topk(8)
    assert torch.equal(view.logprobs_at(ids), values) and source.requests == []


def test_at_views_share_answers():
    source = ExactSource(logprobs())
    view = sparse(source.truth, exact=source)
    ids = torch.tensor([[0, 1], [2, 3], [4, 5]])
    part = view.at(torch.tensor([4, 0, 4]))
    assert torch.equal(part.logprobs_at(ids), source.truth[[4, 0, 4]].gather(1, ids))
    [rows] = source.requests
    assert [row for row, _ in rows] == [0, 4]  # row 4 is requested once, for both of its places
    again = view.at(torch.tensor([0, 4])).at(torch.tensor([1]))
    assert torch.equal(again.logprobs_at(ids[:1]), source.truth[[4]].gather(1, ids[:1])) and len(source.requests) == 1


def test_answer_of_minus_infinity_is_kept():
    truth = logprobs()
    truth[:, 3] = -torch.inf
    source = ExactSource(truth)
    view = sparse(truth, exact=source)
    for _ in range(2):
        assert torch.equal(view.logprobs_at(torch.tensor([[3]] * 5)), torch.full((5, 1), -torch.inf))
    assert len(source.requests) == 1


def test_view_without_positions_returns_empty_tensors():
    view = sparse(logprobs(), exact=ExactSource(logprobs())).at(torch.tensor([], dtype=torch.long))
    assert view.logprobs_at(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3) and view.topk(2)[0].shape == (0, 2)


def test_sparse_view_is_in_public_interface():
    assert isinstance(sparse(logprobs()), arkasr.DistributionView) and "SparseView" in dir(arkasr)
