"""Batches: every clip once, padded batches within the limits, and no dependence on global random generators."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import MonoCut, SupervisionSegment

from arkasr.config.schema import DataConfig
from arkasr.data.bucketing import BatchLimits, Buckets, bucket_limits, spread
from arkasr.data.lazy_cut import LazyCut


def lazy_cut(name: str, seconds: float, text: str = "") -> LazyCut:
    cut = MonoCut(name, 0.0, seconds, 0, [SupervisionSegment(name, name, 0.0, seconds, text=text)])
    return LazyCut.of(cut)


def drawn(cuts, config: DataConfig, worlds, seed: int = 0) -> list[list[list[LazyCut]]]:
    """Draw all groups of batches. `worlds` gives the number of ranks of each group, the last that of all others."""
    limits = BatchLimits(config)
    bounds = bucket_limits(map(limits.length, cuts), config.num_buckets)
    buckets = Buckets(cuts, limits, bounds, config.buffer_clips, random.Random(seed))
    groups, worlds = [], list(worlds)
    while group := buckets.draw(worlds[0]):
        assert len(group) == worlds[0] and all(group)
        groups.append(group)
        worlds = worlds[1:] or worlds
    return groups


CLIPS = st.lists(st.tuples(st.floats(0.1, 30.0), st.integers(0, 400)), min_size=1, max_size=120)


@settings(deadline=None, max_examples=150)
@given(
    clips=CLIPS,
    buckets=st.integers(1, 10),
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    max_seconds=st.floats(1.0, 200.0),
    max_cuts=st.integers(1, 40),
    rate=st.sampled_from([0.0, 5.0, 50.0]),
    size=st.integers(1, 200),
)
def test_padded_batches_are_bounded_and_hold_every_clip_once(clips, buckets, worlds, max_seconds, max_cuts, rate, size):
    cuts = [lazy_cut(f"c{i}", seconds, "é" * letters) for i, (seconds, letters) in enumerate(clips)]
    config = DataConfig(
        max_seconds=max_seconds,
        max_cuts=max_cuts,
        num_buckets=buckets,
        text_bytes_per_second=rate,
        buffer_clips=size,
    )
    batches = [batch for group in drawn(cuts, config, worlds) for batch in group]
    for batch in batches:
        longest = max(each.seconds for each in batch)
        most_bytes = max(len(each.cut().supervisions[0].text.encode()) for each in batch)
        assert len(batch) <= max_cuts
        if len(batch) > 1:
            assert len(batch) * longest <= max_seconds
            assert not rate or len(batch) * most_bytes <= max_seconds * rate * (1 + 1e-9)
    names = Counter(each.cut().id for batch in batches for each in batch if not each.suffix)
    assert names == Counter(each.cut().id for each in cuts)


def random_cuts(number: int = 400) -> list[LazyCut]:
    seconds = np.clip(np.random.default_rng(1).lognormal(1.5, 0.6, number), 0.5, 30.0)
    return [lazy_cut(f"c{i}", float(s), "word " * int(s)) for i, s in enumerate(seconds)]


def padding(buckets: int) -> float:
    """Return the padded audio per audio of all batches."""
    batches = [b for g in drawn(random_cuts(2000), DataConfig(num_buckets=buckets, max_seconds=60.0), [1]) for b in g]
    return sum(len(b) * max(c.seconds for c in b) for b in batches) / sum(c.seconds for b in batches for c in b)


def test_more_buckets_pad_less():
    assert 1.0 <= padding(10) < padding(3) < padding(1)


def test_batches_do_not_depend_on_global_generators():
    def names(seed: int) -> list[list[list[str]]]:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        groups = drawn(random_cuts(), DataConfig(max_seconds=60.0), [2])
        assert random.random() == random.Random(seed).random()
        return [[[each.cut().id for each in batch] for batch in group] for group in groups]

    assert names(1) == names(2)
    other = drawn(random_cuts(), DataConfig(max_seconds=60.0), [2], seed=5)
    assert names(1) != [[[each.cut().id for each in batch] for batch in group] for group in other]


@pytest.mark.parametrize(("ranks", "buckets"), [(1, 8), (2, 8), (8, 30)])
def test_batches_are_full_until_few_clips_are_left(ranks, buckets):
    config = DataConfig(max_seconds=60.0, max_cuts=8, num_buckets=buckets, buffer_clips=800)
    batches = [b for g in drawn(random_cuts(4000), config, [ranks]) for b in g]
    fill = [max(len(b) / 8, (len(b) + 1) * max(c.seconds for c in b) / 60.0) for b in batches]
    assert np.mean([each >= 1 for each in fill[: len(fill) * 7 // 10]]) > 0.98


def test_ranks_get_batches_of_similar_length():
    groups = drawn(random_cuts(4000), DataConfig(max_seconds=60.0, num_buckets=10), [4])
    spans = [max(x) - min(x) for g in groups for x in [[np.mean([c.seconds for c in b]) for b in g]]]
    alone = [np.mean([c.seconds for c in b]) for g in groups for b in g]
    assert np.median(spans) < np.std(alone) / 3


def speakers(number: int, seed: int = 3) -> list[LazyCut]:
    """Return clips whose speaking rates differ by a fifth, as LazyCut without a cut."""
    rng = np.random.default_rng(seed)
    seconds = np.clip(rng.lognormal(1.5, 0.6, number), 0.5, 30.0)
    letters = np.maximum(seconds * 15 * rng.normal(1.0, 0.2, number).clip(0.3), 1).astype(int)
    return [LazyCut(float(s), int(n), str) for s, n in zip(seconds, letters)]


@pytest.mark.parametrize("ranks", [1, 8])
def test_transcripts_of_a_group_are_of_similar_size(ranks):
    clips = speakers(20_000)
    config = DataConfig(max_seconds=120.0, max_cuts=10, num_buckets=10, buffer_clips=4000)
    sizes = [clip.text_bytes for clip in clips]
    unknown = [LazyCut(clip.seconds, 0, str, f"{i}") for i, clip in enumerate(clips)]  # ordered by length only
    known = [clip._replace(suffix=f"{i}") for i, clip in enumerate(clips)]
    longest, padded = zip(*(costs_of(drawn(each, config, [ranks]), sizes) for each in (unknown, known)))
    assert longest[1] < 0.85 * longest[0]  # tokens that all rollouts decode
    assert padded[1] <= padded[0]


def costs_of(groups: list[list[list[LazyCut]]], sizes: list[int]) -> tuple[float, float]:
    """Return the longest transcript of each group, added up, and the padded audio of all batches."""
    longest = sum(max(sizes[int(clip.suffix)] for batch in group for clip in batch) for group in groups)
    return longest, sum(len(batch) * max(clip.seconds for clip in batch) for group in groups for batch in group)


@pytest.mark.parametrize("ranks", [1, 8])
def test_clips_of_unusual_size_do_not_wait_for_the_end_of_the_epoch(ranks):
    clips = [clip._replace(suffix=f"{i}") for i, clip in enumerate(speakers(20_000))]
    config = DataConfig(max_seconds=120.0, max_cuts=10, num_buckets=10, buffer_clips=2000)
    order = [int(clip.suffix) for group in drawn(clips, config, [ranks]) for batch in group for clip in batch]
    waits = np.array([drawn_at - read_at for drawn_at, read_at in enumerate(order)])
    assert waits.max() < 12_000
    rates = np.array([clips[i].text_bytes / clips[i].seconds for i in order])
    medians = np.array([np.median(part) for part in np.array_split(rates, 10)])
    assert abs(medians / np.median(rates) - 1).max() < 0.08


@pytest.mark.parametrize("text", ["a" * 1000, "字" * 334])
def test_long_text_counts_as_longer_audio(text):
    limits = BatchLimits(DataConfig(text_bytes_per_second=50.0))
    assert limits.length(lazy_cut("a", 2.0, text)) == pytest.approx(20.0, rel=0.01)
    assert limits.length(lazy_cut("a", 25.0, text)) == 25.0
    assert BatchLimits(DataConfig(text_bytes_per_second=0)).length(lazy_cut("a", 2.0, text)) == 2.0


def test_bucket_limits_split_the_total_length_evenly():
    lengths = np.random.default_rng(2).uniform(1, 20, 5000)
    bounds = bucket_limits(lengths, 4)
    totals, _ = np.histogram(lengths, [0, *bounds, np.inf], weights=lengths)
    assert len(bounds) == 3 and totals == pytest.approx([lengths.sum() / 4] * 4, rel=0.01)
    assert bucket_limits([2.0] * 50, 4) == [2.0] and bucket_limits([1.0, 2.0], 1) == []


def test_spread_divides_clips_before_it_copies_them():
    clips = random_cuts(5)
    groups = spread([clips[:1], clips[1:]], 4)
    assert len(groups) == 4 and sorted(c.cut().id for g in groups for c in g) == sorted(c.cut().id for c in clips)
    names = [g[0].cut().id for g in spread([clips[:1], clips[1:2]], 5)]
    assert names == ["c0", "c1", "c0_dup0", "c1_dup0", "c0_dup1"]
