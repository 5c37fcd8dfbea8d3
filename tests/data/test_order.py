"""The order of an epoch: a permutation of the whole manifest, in memory and line by line."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
from lhotse import CutSet, MonoCut
from shard_files import epoch, settings, silent_cut

from arkasr.data import blocks, loading
from arkasr.data.batches import Batch
from arkasr.data.blocks import order_hash, write_cuts
from arkasr.data.order import CutStream, epoch_order
from arkasr.data.sampling import TrainingBatches

NUM = 3000


def sorted_cuts() -> list[MonoCut]:
    """Return clips sorted by id, as Lhotse writes manifests."""
    return [silent_cut(f"clip-{i:05d}", 1.0 + (7 * i) % 50 / 10) for i in range(NUM)]


@pytest.fixture(params=["in memory", "text", "blocks", "hash order"])
def manifest(request, tmp_path, monkeypatch):
    """Return settings for the same clips in files of several kinds, read in several ways."""
    monkeypatch.setattr(loading, "load_batch", lambda cuts, speeds: Batch([cut.id for cut in cuts], [], [], []))
    monkeypatch.setattr(blocks, "BLOCK_LINES", 4)
    cuts = sorted_cuts()
    if request.param in ("in memory", "text"):
        path = tmp_path / "train.jsonl"
        CutSet.from_cuts(cuts).to_file(path)
    else:
        path = tmp_path / "train.jsonl.gz"
        write_cuts(path, sorted(cuts, key=lambda cut: order_hash(cut.id)) if request.param == "hash order" else cuts)
    lazy = "never" if request.param == "in memory" else "always"
    return settings(path, lazy=lazy, buffer_clips=300, max_seconds=40.0, max_cuts=10)


def places(names: list[str]) -> np.ndarray:
    return np.array([int(name.split("-")[1]) for name in names])


@pytest.mark.slow
def test_median_place_in_the_manifest_is_the_same_in_every_tenth_of_the_epoch(manifest):
    batches = TrainingBatches(manifest, 1)
    drawn = places(epoch(batches))
    assert sorted(drawn) == list(range(NUM))
    medians = [np.median(part) / NUM for part in np.array_split(drawn, 10)]
    assert max(abs(median - 0.5) for median in medians) < 0.12  # 0.45 if clips come in the order of the manifest


@pytest.mark.slow
def test_every_epoch_has_its_own_order_which_depends_on_the_seed(manifest):
    def order(seed: int, number: int) -> list[int]:
        batches = TrainingBatches(manifest, seed)
        batches.epoch = number
        return list(places(epoch(batches)))

    first = order(1, 0)
    assert first == order(1, 0)
    for other in (order(1, 1), order(2, 0)):
        assert sorted(other) == sorted(first)
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15


def test_epoch_order_is_a_permutation_of_its_own():
    random.seed(3)
    orders = [epoch_order(seed, number, 50) for seed in (1, 2) for number in (0, 1)]
    random.seed(4)
    assert orders[0] == epoch_order(1, 0, 50)
    assert all(sorted(order) == list(range(50)) for order in orders) and len(set(map(tuple, orders))) == 4


class Lines:
    """A manifest of three shards with two lines each. Line 1 of every shard holds two clips."""

    num_shards = 3

    def read(self, shard, line):
        for number, names in enumerate([["a"], ["b", "c"]]):
            for name in names if number >= line else []:
                yield number, f"{name}{shard}"


def test_stream_continues_at_any_position():
    stream = CutStream(Lines(), [2, 0, 1])
    everything, positions = [], []
    for name in stream:
        everything.append(name)
        positions.append(stream.position)
    assert everything == ["a2", "b2", "c2", "a0", "b0", "c0", "a1", "b1", "c1"]
    assert positions[3] == (1, 1)
    assert list(CutStream(Lines(), [2, 0, 1], positions[3])) == everything[4:]
    assert list(CutStream(Lines(), [2, 0, 1], positions[2])) == everything[3:]


def test_stream_goes_on_after_the_last_clip_in_each_iteration():
    everything = list(CutStream(Lines(), [2, 0, 1]))
    for number in range(len(everything) + 1):
        stream = CutStream(Lines(), [2, 0, 1])
        head = list(islice(stream, number))
        position = stream.position
        middle = list(islice(stream, 1))  # also within a line of two clips
        assert stream.position >= position
        assert head + middle + list(stream) == everything
