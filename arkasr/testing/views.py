"""Does an object keep what `arkasr.DistributionView` promises? Legend: see arkasr/interfaces.py."""

from __future__ import annotations

from typing import Any

import torch

from arkasr.interfaces import DistributionView
from arkasr.testing.require import Require, attempt, described, distance, is_tensor, requirer

TOP = 5


def check_view(check: str, view: Any, positions: int, tolerance: float, drops: bool = False) -> None:
    """Check that a view of P positions holds true log-probabilities; raises AssertionError opened with `check`.

    drops: rows may sum to less than 1 though all their values are finite, as where another vocabulary is told in.
    """
    require = requirer(check)
    require(isinstance(view, DistributionView), f"{described(view)} is no DistributionView")
    _check_topk(check, view, positions)
    if positions:
        _check_truth(require, view, tolerance, drops)
    _check_rows(check, view, tolerance)


def _check_topk(check: str, view: DistributionView, positions: int) -> None:
    """Shapes, dtypes, devices, order."""
    require = requirer(check)
    size = view.vocab_size
    require(isinstance(size, int) and size > 1, f"vocab_size must be a whole number above 1, not {size!r}")
    for k in (1, min(TOP, size), size + 3):
        with attempt(check, f"topk({k}) of a vocabulary of {size}"):
            ids, values = view.topk(k)
            width = ids.shape[-1]
        require(width == k or (k > size and 0 < width <= size), f"topk({k}) of {size} tokens names {width}")
        _check_pair(require, ids, values, positions, width)
        require(bool(((ids >= 0) & (ids < size)).all()), f"topk names ids outside 0 to {size - 1}")
        require(bool((values[:, 1:] <= values[:, :-1]).all()), "topk is not sorted, best first")
        again = ids.sort(-1).values
        twice = (again[:, 1:] == again[:, :-1]).any(-1) & (values > -torch.inf).all(-1)
        require(not bool(twice.any()), "topk names an id twice in one row")
        _check_pair(require, ids, view.logprobs_at(ids), positions, width)
        require(distance(view.logprobs_at(ids), values) < 1e-5, "logprobs_at differs from topk at the ids of topk")


def _check_pair(require: Require, ids: Any, values: Any, positions: int, width: int) -> None:
    want = f"[{positions}, {width}] (a row for each token id)"
    require(is_tensor(ids, torch.int64, positions, width), f"topk's ids are {described(ids)}, not int64 {want}")
    good = is_tensor(values, torch.float32, positions, width)
    require(good, f"log-probabilities are {described(values)}, not float32 {want}")
    require(values.device == ids.device, f"ids are on {ids.device}, log-probabilities on {values.device}")
    require(not bool(values.isnan().any()), "a log-probability is NaN; where a value is not known it is -inf")


def _check_truth(require: Require, view: DistributionView, tolerance: float, drops: bool) -> None:
    """Log-probabilities sum to at most 1, and to exactly 1 where all are known; entropy is that of such rows."""
    values = view.topk(view.vocab_size)[1].detach().double()
    mass, entropy = values.logsumexp(-1), view.entropy()
    over = "are these raw logits? subtract their logsumexp"
    require(float(mass.max()) <= tolerance, f"the probabilities of a row sum to {float(mass.max().exp()):.4g}; {over}")
    if entropy is None:
        told = values.shape[-1] == view.vocab_size and not drops
        full = mass[values.isfinite().all(-1) & told]
        least = float(full.min().exp()) if len(full) else 1.0
        short = f"a row gives all {view.vocab_size} tokens a value, but its probabilities sum to {least:.4g}"
        require(distance(full, torch.zeros_like(full)) <= tolerance, f"{short}; {over}")
        return
    require(is_tensor(entropy, torch.float32, len(mass)), f"entropy is {described(entropy)}, not float32 [{len(mass)}]")
    require(entropy.device == values.device, f"entropy is on {entropy.device}, log-probabilities on {values.device}")
    low = f"the probabilities of a row sum to {float(mass.min().exp()):.4g}; return None where they are not all known"
    require(distance(mass, torch.zeros_like(mass)) <= tolerance, f"entropy is given, but {low}")
    exact = -(values.exp() * values.masked_fill(values == -torch.inf, 0.0)).sum(-1)
    gap = distance(entropy, exact)
    require(gap <= 10 * tolerance, f"entropy is not -sum p log p in nats (off by {gap:.4g})")


def _check_rows(check: str, view: DistributionView, tolerance: float) -> None:
    """`at` returns the rows asked for, by an index on the CPU as alignments have it: in any order, repeated, none."""
    ids, values = view.topk(TOP)
    count = len(ids)
    for rows in ([count - 1, 0, 0] if count else [], [], list(range(count))):
        index = torch.tensor(rows, dtype=torch.long)
        with attempt(check, f"at({rows})"):
            part = view.at(index)
            found = part.logprobs_at(ids[index]), part.topk(TOP)[1]
        good = max(distance(one, values[index]) for one in found) <= tolerance and part.vocab_size == view.vocab_size
        requirer(check)(good, f"at({rows}) does not hold these rows of the view")
