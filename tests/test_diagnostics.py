"""What is measured at every step, on cases worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from arkasr.distill.diagnostics import MAXIMA, rates, rollout_sums, support_sums
from arkasr.distill.rollout import Rollout
from arkasr.interfaces import Alignment, Support
from arkasr.model.generation import Generation


def support(*sizes_and_overlaps, width=6):
    """A support whose positions have so many valid tokens, of which so many are named by both."""
    sizes = torch.tensor([size for size, _ in sizes_and_overlaps]).reshape(-1)
    valid = torch.arange(width) < sizes[:, None]
    ids = torch.zeros(len(sizes), width, dtype=torch.long)
    shared = torch.arange(width) < torch.tensor([shared for _, shared in sizes_and_overlaps]).reshape(-1)[:, None]
    return Support(ids, ids, valid, valid, shared, ids[:, 0], ids[:, 0])


def sums_of(made, top_k=3):
    return {name: float(value) for name, value in support_sums(made, top_k).items()}


def test_support_sizes_by_hand():
    """Top 3 of both: sizes 4, 5, 2 count with overlaps 2, 1, 0 of 3; sizes 1 and 0 do not count."""
    sums = sums_of(support((4, 2), (1, 1), (5, 1), (0, 0), (2, 0)))
    assert sums == {
        "positions": 3,
        "vuss": 11,
        "overlap": pytest.approx(2 / 3 + 1 / 3),
        "vuss_max": 5,
        "neg_vuss_min": -2,
    }


def test_rates_by_hand():
    rollout = Rollout([0, 1, 3], Generation([], [], torch.zeros(0, 3)), num_empty=1, num_stopped=3)
    rows = torch.arange(7)
    sums = sums_of(support((4, 2), (5, 1), (2, 0))) | {
        name: float(value) for name, value in rollout_sums(rollout, Alignment([], rows, rows, 10, 2), 4).items()
    }
    assert rates(sums) == {
        "vuss": pytest.approx(11 / 3),
        "vuss_min": 2,
        "vuss_max": 5,
        "overlap": pytest.approx(1 / 3),
        "stop_rate": 0.75,
        "empty_rate": 0.25,
        "mismatch_rate": 0.5,
        "coverage": 0.7,
    }


@pytest.mark.parametrize("made", [support(), support((1, 1), (0, 0))])
def test_nothing_counted_is_zero_and_not_infinite(made):
    sums = sums_of(made)
    assert (sums["positions"], sums["vuss"], sums["overlap"]) == (0, 0, 0)
    assert sums["vuss_max"] == sums["neg_vuss_min"] == -math.inf
    none = dict.fromkeys(("clips", "stopped", "empty", "mismatched", "rollout_tokens", "paired"), 0.0)
    assert rates(sums | none) == dict.fromkeys(rates(sums | none), 0.0)


def test_micro_batches_and_ranks_add_up():
    """Sums add; the two extremes are maxima, and a part that counts nothing does not disturb them."""
    parts = [support((4, 2), (6, 3)), support(), support((1, 0)), support((2, 1), (3, 3))]
    together = sums_of(support((4, 2), (6, 3), (1, 0), (2, 1), (3, 3)))
    merged = {}
    for part in map(sums_of, parts):
        for name, value in part.items():
            merged[name] = max(merged.get(name, value), value) if name in MAXIMA else merged.get(name, 0.0) + value
    assert merged == pytest.approx(together)
    assert set(MAXIMA) <= set(together)
