"""SparseView: it answers what it was given, asks once for what it lacks, and keeps what it was told."""

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


class Oracle:
    """Knows every number, and writes down what it was asked."""

    def __init__(self, truth):
        self.truth, self.asked = truth, []

    def __call__(self, rows, ids):
        self.asked.append([(row, [i for i in some if i >= 0]) for row, some in zip(rows.tolist(), ids.tolist())])
        return self.truth[rows].gather(1, ids.clamp(min=0))


def sparse(truth, k=8, exact=None, shuffled=True, cut=False):
    """Make a view of the k best of each row, in any order; `cut` takes the last one from every other row."""
    best = truth.topk(k)
    ids, values = best.indices.clone(), best.values.clone()
    if cut:
        ids[::2, -1], values[::2, -1] = -1, -torch.inf
    order = torch.randperm(k, generator=torch.Generator().manual_seed(1)) if shuffled else torch.arange(k)
    return arkasr.SparseView(ids[:, order], values[:, order], V, exact)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("rows", [5, 1, 0])
def test_it_keeps_the_promises_of_a_view(known, cut, rows):
    truth = logprobs(rows)
    check_view("check_view", sparse(truth, exact=Oracle(truth) if known else None, cut=cut), rows, 1e-4)


def test_the_best_are_the_best():
    truth = logprobs()
    ids, values = sparse(truth).topk(3)
    assert torch.equal(ids, truth.topk(3).indices) and torch.equal(values, truth.topk(3).values)


def test_what_is_not_known_is_minus_infinity():
    truth = logprobs()
    found = sparse(truth).logprobs_at(torch.arange(V).expand(5, -1))
    known = torch.zeros(5, V, dtype=torch.bool).scatter(1, truth.topk(8).indices, True)
    assert torch.equal(found, truth.masked_fill(~known, -torch.inf))
    assert sparse(truth).entropy() is None


def test_ids_outside_the_vocabulary_are_not_asked_for():
    oracle = Oracle(logprobs())
    view = sparse(oracle.truth, exact=oracle)
    assert torch.equal(view.logprobs_at(torch.tensor([[-1, V]] * 5)), torch.full((5, 2), -torch.inf))
    assert oracle.asked == []


def test_more_than_came_is_refused_by_the_names_of_the_keys():
    with pytest.raises(
        UserError, match=r"the 9 best .* knows only 8;.*teacher\.options\.top_k where a server .*distill\.top_k"
    ):
        sparse(logprobs()).topk(9)
    with pytest.raises(UserError, match="knows only 7"):
        sparse(logprobs(), cut=True).topk(8)


def test_all_numbers_are_exact_and_asked_for_once():
    oracle = Oracle(logprobs())
    view = sparse(oracle.truth, exact=oracle)
    ids = torch.tensor([[0, 5, 5, 39], [1, 2, 3, 4], [7, 7, 7, 7], [0, 1, 2, 3], [30, 31, 32, 33]])
    assert torch.equal(view.logprobs_at(ids), oracle.truth.gather(1, ids))
    [rows] = oracle.asked
    best = oracle.truth.topk(8).indices.tolist()
    want = {row: sorted(set(some) - set(best[row])) for row, some in enumerate(ids.tolist())}
    assert dict(rows) == {row: some for row, some in want.items() if some} and len(rows) > 2
    assert torch.equal(view.logprobs_at(ids.flip(1)), oracle.truth.gather(1, ids.flip(1)))
    assert len(oracle.asked) == 1


def test_what_is_known_already_is_not_asked_for():
    oracle = Oracle(logprobs())
    view = sparse(oracle.truth, exact=oracle)
    ids, values = view.topk(8)
    assert torch.equal(view.logprobs_at(ids), values) and oracle.asked == []


def test_parts_share_what_was_learnt():
    oracle = Oracle(logprobs())
    view = sparse(oracle.truth, exact=oracle)
    ids = torch.tensor([[0, 1], [2, 3], [4, 5]])
    part = view.at(torch.tensor([4, 0, 4]))
    assert torch.equal(part.logprobs_at(ids), oracle.truth[[4, 0, 4]].gather(1, ids))
    [rows] = oracle.asked
    assert [row for row, _ in rows] == [0, 4]  # row 4 is asked once, for both of its places
    again = view.at(torch.tensor([0, 4])).at(torch.tensor([1]))
    assert torch.equal(again.logprobs_at(ids[:1]), oracle.truth[[4]].gather(1, ids[:1])) and len(oracle.asked) == 1


def test_a_number_that_is_minus_infinity_is_kept_too():
    truth = logprobs()
    truth[:, 3] = -torch.inf
    oracle = Oracle(truth)
    view = sparse(truth, exact=oracle)
    for _ in range(2):
        assert torch.equal(view.logprobs_at(torch.tensor([[3]] * 5)), torch.full((5, 1), -torch.inf))
    assert len(oracle.asked) == 1


def test_no_positions():
    view = sparse(logprobs(), exact=Oracle(logprobs())).at(torch.tensor([], dtype=torch.long))
    assert view.logprobs_at(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3) and view.topk(2)[0].shape == (0, 2)


def test_it_is_part_of_the_public_face():
    assert isinstance(sparse(logprobs()), arkasr.DistributionView) and "SparseView" in dir(arkasr)
