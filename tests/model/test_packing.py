"""Packed rows: grouping of windows, indices, and attention against one call per window."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from arkasr.model.packing import MASKED, group_lengths, packed, packed_attention, take
from arkasr.testing.host_reads import forbid_host_reads

CPU, LAYER = torch.device("cpu"), SimpleNamespace(is_causal=False)
LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=12)


def reference_cost(lengths, limits, masked, per_group):
    """Compute the cost of a grouping, window by window."""
    groups = {limit: [n for n in lengths if min(x for x in limits if x >= n) == limit] for limit in limits}
    return sum(len(own) * limit * (1 + masked * (min(own) < limit)) + per_group for limit, own in groups.items() if own)


@settings(deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=7), st.sampled_from([0, MASKED]), st.sampled_from([16, 512]))
def test_group_lengths_have_the_lowest_cost_of_all_groupings(lengths, masked, per_group):
    distinct = sorted(set(lengths))
    options = (
        [*(n for n, kept in zip(distinct, chosen) if kept), distinct[-1]]
        for chosen in product([False, True], repeat=len(distinct) - 1)
    )
    found = group_lengths(lengths, masked, per_group).tolist()
    assert found == sorted(set(found)) and found[-1] == distinct[-1] and set(found) <= set(distinct)
    assert reference_cost(lengths, found, masked, per_group) == pytest.approx(
        min(reference_cost(lengths, one, masked, per_group) for one in options)
    )


def test_whole_windows_form_a_group_of_their_own():
    assert group_lengths([104] * 40 + [103]).tolist() == [103, 104]
    assert group_lengths([500] * 40).tolist() == [500]
    assert group_lengths([7, 6, 5]).tolist() == [7]


@settings(deadline=None)
@given(LENGTHS)
def test_packed_rows_are_the_rows_of_their_windows(lengths):
    starts = np.cumsum([0, *lengths])[:-1] + 10 * np.arange(len(lengths))  # ten unused rows after each window
    packing = packed(lengths, starts, CPU, torch.float32)
    expected = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, lengths)])
    assert packing.sources[packing.real].tolist() == expected.tolist()
    assert packing.positions[packing.real].tolist() == [i for n in lengths for i in range(n)]
    total = sum(group.windows * group.length for group in packing.groups)
    assert len(packing.sources) == len(packing.positions) == total
    assert set(packing.sources.tolist()) == set(expected.tolist())  # padding repeats rows of audio
    assert sum(group.windows for group in packing.groups) == len(lengths)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS)
def test_packed_attention_equals_attention_within_each_window(dtype, lengths):
    packing = packed(lengths, np.cumsum([0, *lengths])[:-1], CPU, dtype)
    generator = torch.Generator().manual_seed(len(lengths))
    q, k, v = torch.randn(3, 1, 2, sum(lengths), 4, generator=generator, dtype=dtype)
    rows = [take(x[0].transpose(0, 1), packing.sources).transpose(0, 1)[None] for x in (q, k, v)]
    states, weights = packed_attention(LAYER, *rows, None, packing, scaling=0.5)
    found = take(states[0], packing.real).transpose(0, 1)
    windows = zip(*(x[0].split(lengths, dim=1) for x in (q, k, v)))
    expected = torch.cat([scaled_dot_product_attention(*parts, scale=0.5) for parts in windows], dim=1)
    assert weights is None and states.shape == (1, len(packing.sources), 2, 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_groups_without_padding_have_no_mask():
    packing = packed([30, 104, 104, 29, 104], [0] * 5, CPU, torch.bfloat16)
    assert [(group.windows, group.length) for group in packing.groups] == [(2, 30), (3, 104)]
    padded, whole = (group.mask for group in packing.groups)
    assert whole is None and padded.shape == (2, 1, 1, 30) and padded.dtype == torch.bfloat16
    assert padded[0].eq(0).all() and padded[1, 0, 0, :29].eq(0).all() and padded[1, 0, 0, 29:].eq(-torch.inf).all()
    assert padded.stride(0) % 8 == 0


def test_equal_windows_are_taken_without_a_copy():
    packing, rows = packed([6, 6], [0, 6], CPU, torch.float32), torch.randn(12, 3)
    assert take(rows, packing.sources) is rows and take(rows, packing.real) is rows
    assert torch.equal(take(rows, np.array([3, 0])), rows[[3, 0]])


def test_packing_reads_nothing_from_the_device():
    rows = torch.randn(1, 2, 60, 4)
    with forbid_host_reads():
        packing = packed([30, 10, 20], [0, 30, 40], CPU, torch.float32)
        selected = take(rows[0].transpose(0, 1), packing.sources).transpose(0, 1)[None]
        packed_attention(LAYER, selected, selected, selected, None, packing)


def test_packed_attention_without_packing_is_sdpa():
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    mask = torch.rand(2, 1, 5, 5) > 0.3
    mask[..., 0] = True
    found, _ = packed_attention(LAYER, q, k, v, mask, scaling=0.7)
    torch.testing.assert_close(found, scaled_dot_product_attention(q, k, v, mask, scale=0.7).transpose(1, 2))
