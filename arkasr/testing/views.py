"""Check that an object conforms to `arkasr.DistributionView`."""

from __future__ import annotations

from typing import Any

import torch

from arkasr.interfaces import DistributionView
from arkasr.testing.require import Require, attempt, describe, distance, is_tensor, requirer

TOP = 5
LOGITS = "return log-probabilities, not raw logits (subtract their logsumexp)"


def check_view(check: str, view: Any, positions: int, tolerance: float, drops: bool = False) -> None:
    """Check that a view has P positions and returns true log-probabilities.

    Args:
        check: Name of the check, the start of its messages.
        view: The view.
        positions: P.
        tolerance: Allowed difference between log-probabilities, in nats.
        drops: Probabilities may sum to less than 1 even if all tokens have a value, as in a view that was translated
            into another vocabulary.

    Raises:
        AssertionError: The first promise that the view breaks.
    """
    require = requirer(check)
    members = "vocab_size, topk, logprobs_at, entropy, at"
    require(isinstance(view, DistributionView), f"{describe(view)} is not a DistributionView; it must have {members}")
    _check_topk(check, view, positions)
    if positions:
        _check_probabilities(require, view, tolerance, drops)
    _check_rows(check, view, tolerance)


def _check_topk(check: str, view: DistributionView, positions: int) -> None:
    """Check shapes, dtypes, devices, order, and that `topk` and `logprobs_at` agree."""
    require = requirer(check)
    size = view.vocab_size
    require(isinstance(size, int) and size > 1, f"vocab_size is {size!r}; it must be an int above 1")
    for k in (1, min(TOP, size), size + 3):
        with attempt(check, f"topk({k}) with vocab_size {size}"):
            ids, values = view.topk(k)
            width = ids.shape[-1]
        expected = k if k <= size else f"1 to {size}"
        right = width == k or (k > size and 0 < width <= size)
        require(right, f"topk({k}) with vocab_size {size} returns {width} tokens; it must return {expected}")
        _check_pair(require, ids, values, positions, width)
        in_range = bool(((ids >= 0) & (ids < size)).all())
        require(in_range, f"topk returns ids outside of 0 to {size - 1}; they must be in the vocabulary")
        in_order = bool((values[:, 1:] <= values[:, :-1]).all())
        require(in_order, "topk is not sorted; log-probabilities must be in descending order")
        ordered = ids.sort(-1).values
        repeated = (ordered[:, 1:] == ordered[:, :-1]).any(-1) & (values > -torch.inf).all(-1)
        require(not bool(repeated.any()), "topk returns the same id twice at one position; ids must be distinct")
        _check_pair(require, ids, view.logprobs_at(ids), positions, width)
        equal = distance(view.logprobs_at(ids), values) < 1e-5
        require(equal, "logprobs_at differs from topk for the same ids; both must return the same log-probabilities")


def _check_pair(require: Require, ids: Any, values: Any, positions: int, width: int) -> None:
    """Check ids and log-probabilities [P, width]."""
    want = f"[{positions}, {width}], one row per position"
    good_ids = is_tensor(ids, torch.int64, positions, width)
    require(good_ids, f"topk returns ids {describe(ids)}; they must be int64 {want}")
    good_values = is_tensor(values, torch.float32, positions, width)
    require(good_values, f"log-probabilities are {describe(values)}; they must be float32 {want}")
    devices = f"ids are on {ids.device} and log-probabilities on {values.device}"
    require(values.device == ids.device, f"{devices}; both must be on the same device")
    require(not bool(values.isnan().any()), "a log-probability is NaN; it must be -inf if the value is not known")


def _check_probabilities(require: Require, view: DistributionView, tolerance: float, drops: bool) -> None:
    """Check that probabilities sum to at most 1, to 1 if all are known, and that `entropy` matches them."""
    values = view.topk(view.vocab_size)[1].detach().double()
    log_sum, entropy = values.logsumexp(-1), view.entropy()
    largest = f"the probabilities of one position sum to {float(log_sum.max().exp()):.4g}, above 1"
    require(float(log_sum.max()) <= tolerance, f"{largest}; {LOGITS}")
    if entropy is None:
        must_be_complete = values.shape[-1] == view.vocab_size and not drops
        complete = log_sum[values.isfinite().all(-1) & must_be_complete]
        least = float(complete.min().exp()) if len(complete) else 1.0
        known = f"all {view.vocab_size} tokens of one position have a value, but their probabilities sum to {least:.4g}"
        require(distance(complete, torch.zeros_like(complete)) <= tolerance, f"{known}; {LOGITS}")
        return
    want = f"float32 [{len(log_sum)}] or None"
    require(
        is_tensor(entropy, torch.float32, len(log_sum)), f"entropy returns {describe(entropy)}; it must return {want}"
    )
    devices = f"entropy is on {entropy.device} and log-probabilities on {values.device}"
    require(entropy.device == values.device, f"{devices}; both must be on the same device")
    smallest = f"the probabilities of one position sum to {float(log_sum.min().exp()):.4g}"
    require(
        distance(log_sum, torch.zeros_like(log_sum)) <= tolerance,
        f"entropy returns values, but {smallest}; it must return None if not all probabilities are known",
    )
    exact = -(values.exp() * values.masked_fill(values == -torch.inf, 0.0)).sum(-1)
    gap = distance(entropy, exact)
    require(gap <= 10 * tolerance, f"entropy differs from -sum p log p in nats by {gap:.4g}; it must be equal")


def _check_rows(check: str, view: DistributionView, tolerance: float) -> None:
    """Check that `at` returns the requested rows in any order, repeated, or none, for an index on the CPU."""
    ids, values = view.topk(TOP)
    count = len(ids)
    for rows in ([count - 1, 0, 0] if count else [], [], list(range(count))):
        index = torch.tensor(rows, dtype=torch.long)
        with attempt(check, f"at({rows})"):
            part = view.at(index)
            found = part.logprobs_at(ids[index]), part.topk(TOP)[1]
        equal = max(distance(one, values[index]) for one in found) <= tolerance
        good = equal and part.vocab_size == view.vocab_size
        requirer(check)(good, f"at({rows}) returns a view of other rows; it must return these rows in this order")
