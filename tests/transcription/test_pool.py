from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.pool import Pool
from arkasr.transcription.stream import Window


def filled(lengths):
    pool = Pool()
    for place, samples in enumerate(lengths):
        pool.add(SimpleNamespace(), place, Window(0.0, torch.zeros(samples)))
    return pool


LENGTHS = st.lists(st.integers(1, 5 * SAMPLE_RATE), min_size=1, max_size=30)


@given(LENGTHS, st.floats(0.5, 20))
def test_batches_hold_every_window_once_and_keep_the_limit(lengths, batch_seconds):
    pool, taken = filled(lengths), []
    assert abs(pool.seconds - sum(lengths) / SAMPLE_RATE) < 1e-6
    while pool:
        batch = pool.take(batch_seconds)
        padded = len(batch) * max(piece.samples for piece in batch) / SAMPLE_RATE
        assert padded <= batch_seconds or len(batch) == 1
        assert batch == sorted(batch, reverse=True)
        taken += [piece.number for piece in batch]
    assert sorted(taken) == list(range(len(lengths))) and pool.seconds == 0


@given(LENGTHS, st.floats(0.5, 20))
def test_the_window_that_waits_longest_is_always_taken(lengths, batch_seconds):
    pool, waiting = filled(lengths), set(range(len(lengths)))
    while pool:
        batch = {piece.number for piece in pool.take(batch_seconds)}
        assert min(waiting) in batch
        waiting -= batch


def test_a_batch_has_windows_of_similar_length():
    seconds = [1, 10, 1.1, 9.9, 1.2, 9.8, 1.3, 9.7]
    pool = filled([int(s * SAMPLE_RATE) for s in seconds])
    sizes = count()
    found = []
    while pool and next(sizes) < 10:
        found.append(sorted(piece.samples / SAMPLE_RATE for piece in pool.take(40)))
    assert found == [[1, 1.1, 1.2, 1.3], [9.7, 9.8, 9.9, 10]]


@given(LENGTHS, st.integers(1, 4), st.floats(0.5, 60))
def test_everything_is_taken_in_equal_parts_if_it_fits(lengths, parts, batch_seconds):
    pool = filled(lengths)
    batches = pool.take_all(parts, batch_seconds)
    if not batches:
        assert len(pool) == len(lengths)
        return
    assert len(pool) == 0 and pool.seconds == 0 and len(batches) <= parts
    assert sorted(piece.number for batch in batches for piece in batch) == list(range(len(lengths)))
    sizes = [sum(piece.samples for piece in batch) for batch in batches]
    assert max(sizes) - sum(lengths) / parts <= max(lengths)
    for batch in batches:
        assert batch == sorted(batch, reverse=True) and len(batch) * batch[0].samples <= batch_seconds * SAMPLE_RATE
