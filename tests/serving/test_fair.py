"""Batches of the service: bounded, alike in length, and fair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from arkasr.serving.fair import MIN_FILL, choose

LENGTHS = st.lists(st.lists(st.floats(0.1, 30), min_size=1, max_size=6), min_size=1, max_size=8)


def taken(waiting: list[list[float]], counts: list[int]) -> list[float]:
    return [seconds for lengths, count in zip(waiting, counts, strict=True) for seconds in lengths[:count]]


def test_choose_takes_similar_lengths_first():
    assert choose([[2], [9, 9, 9], [3]], 12) == [1, 0, 1]
    assert choose([[9, 9, 9], [3], [2]], 27) == [3, 0, 0]


def test_choose_serves_requests_in_turn():
    assert choose([[28] * 8, [28] * 8, [28] * 8, [28]], 8 * 28) == [3, 2, 2, 1]


def test_choose_pads_no_more_than_half():
    assert choose([[1], [28], [28]], 1000) == [1, 0, 0]
    assert choose([[28], [1], [28]], 1000) == [1, 1, 1]


@given(LENGTHS, st.floats(1, 300))
def test_choose_keeps_its_bounds(waiting, batch_seconds):
    counts = choose(waiting, batch_seconds)
    lengths = taken(waiting, counts)
    padded = len(lengths) * max(lengths)
    assert counts[0] >= 1 and all(0 <= count <= len(row) for count, row in zip(counts, waiting, strict=True))
    assert len(lengths) == 1 or (padded <= batch_seconds and sum(lengths) >= MIN_FILL * padded - 1e-6)


@given(LENGTHS)
def test_choose_serves_every_request_within_one_round(waiting):
    """The one that was served least recently is first, so each is served after at most as many batches as requests."""
    queue = [list(row) for row in waiting]
    last = queue[-1]
    before = len(last)
    for _ in range(len(waiting)):
        counts = choose(queue, 40)
        served = [row for row, count in zip(queue, counts, strict=True) if count]
        for row, count in zip(queue, counts, strict=True):
            del row[:count]
        queue = [row for row in queue if row and not any(row is each for each in served)] + [r for r in served if r]
        if len(last) < before:
            return
    raise AssertionError("the last request was not served")
