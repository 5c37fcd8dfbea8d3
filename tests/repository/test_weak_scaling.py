"""The simulation of steps on several ranks: its arithmetic, the drawn lengths, and the efficiency that it predicts."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import corpus_lengths
import step_model
import waits
import weak_scaling

from arkasr.config.schema import DataConfig
from arkasr.data.lazy_cut import LazyCut

COSTS = step_model.Costs(passes=100.0, token=2.0, teacher=200.0, student=40.0, backward=300.0)


def batch(*clips: tuple[float, int]) -> list[LazyCut]:
    """Return clips of some seconds and tokens."""
    return [LazyCut(seconds, 0, partial(int, tokens)) for seconds, tokens in clips]


def reference_step(group: list[list[LazyCut]], gather: float, reduce: float, latency: float) -> tuple[float, float]:
    """Return the time of one step and the mean work of a rank, with `COSTS`, ms."""
    ends, work = [0.0, 0.0, 0.0], 0.0
    for clips in group:
        padded, tokens = len(clips) * max(c.seconds for c in clips), max(c.make() for c in clips)
        own = [padded / 400 * 300 + 2 * tokens, padded / 400 * 40, padded / 400 * 300]
        ends, work = [max(pair) for pair in zip(ends, own)], work + sum(own) / len(group)
    return gather + ends[0] + max(ends[1], gather) + max(ends[2], gather + reduce) + latency, work


def test_step_ends_each_part_with_its_slowest_rank():
    groups = [
        [batch((10.0, 50), (8.0, 20)), batch((4.0, 90), (4.0, 10), (3.0, 10))],
        [batch((40.0, 5)), batch((2.0, 400))],
    ]
    for times in ((0.0, 0.0, 0.0), (5.0, 30.0, 0.5)):
        total = step_model.simulate(iter(groups), 2, COSTS, times)
        steps = [reference_step(group, *times) for group in groups]
        assert total.steps == 2 and total.time == pytest.approx(sum(step for step, _ in steps))
        assert total.efficiency == pytest.approx(sum(work for _, work in steps) / total.time)
        waited = total.time * (1 - total.efficiency)
        assert total.text + total.audio + total.network == pytest.approx(waited)
        assert total.speed == pytest.approx(1000 * (29.0 + 42.0) / 2 / total.time)
    alone = step_model.simulate(iter([groups[0][:1]]), 1, COSTS, (0.0, 0.0, 0.0))
    assert alone.efficiency == pytest.approx(1.0) and alone.text == alone.audio == alone.network == 0.0


def test_collectives_stay_inside_machines_where_each_holds_a_copy():
    network = step_model.Network(machine=300.0, network=25.0, per_machine=8, latency=0.2)
    assert network.times(1, 0) == (0.0, 0.0, 0.0)
    gather, reduce, _ = network.times(8, 0)
    assert gather == pytest.approx(2 * 1.14 * 7 / 8 / 300 * 1000) and reduce == pytest.approx(2 * gather)
    apart, whole = network.times(24, 0), network.times(24, 1)
    assert apart[0] == gather and apart[1] == pytest.approx(reduce + 2 * 2 / 3 * 4 * 1.14 / 8 / 25 * 1000)
    assert whole[0] == pytest.approx(2 * 1.14 * 23 / 24 / 25 * 1000) and whole[1] == pytest.approx(2 * whole[0])


@pytest.mark.parametrize("name", ["aishell", "wenetspeech"])
def test_drawn_clips_have_the_published_quantiles(name):
    corpus = corpus_lengths.CORPORA[name]
    ((_, shares, seconds),) = corpus.parts
    drawn, units = map(np.array, corpus_lengths.draw_clips(corpus, 50_000, 1.0, seed=1))
    for share, published in list(zip(shares, seconds))[1:-2]:
        assert np.mean(drawn <= published + 0.005) == pytest.approx(share, abs=0.008)
    long = drawn > 4  # so that rounding to whole characters hardly matters
    assert np.median(units[long] / drawn[long]) == pytest.approx(corpus.rate, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", weak_scaling.CORPORA)
def test_ranks_compute_for_nine_tenths_of_the_time_at_the_published_sizes(name, capsys):
    words = ["--corpora", name, "--ranks", "1", "24", "--clips", "100000", "data.buffer_clips=20000"]
    weak_scaling.main(words)
    printed = capsys.readouterr().out
    rows = [row.split(" | ") for row in re.findall(r"^\| (length.*) \|$", printed, re.MULTILINE)]
    assert [row[:2] for row in rows] == [[by, n] for by in ("length", "length, text") for n in ("1", "24")]
    before, after = (
        {"efficiency": float(row[12]), "speed": float(row[13]), "padding": float(row[15])} for row in rows[1::2]
    )
    assert after["efficiency"] >= 0.9 and after["efficiency"] > before["efficiency"]
    assert after["speed"] > 1.01 * before["speed"] and after["padding"] <= 1.05 * before["padding"]


def seconds_to_sleep(clips: list[LazyCut]) -> list[float]:
    """Return times that differ between batches."""
    return [0.01 * len(clips), 0.0, 0.001 * max(clip.seconds for clip in clips)]


@pytest.mark.slow
@pytest.mark.distributed
def test_waits_of_real_processes_are_those_of_the_slowest_rank(tmp_path):
    corpus, manifest = corpus_lengths.CORPORA["aishell"], tmp_path / "clips.jsonl"
    corpus_lengths.write_manifest(manifest, corpus, *corpus_lengths.draw_clips(corpus, 400, 1.0, seed=0))
    config = DataConfig(max_seconds=40.0, max_cuts=8, num_buckets=2, buffer_clips=100)
    found = waits.measure(manifest, config, 2, 5, seconds_to_sleep)
    assert (found.ranks, found.steps) == (2, 5)
    assert 0 < found.work <= found.simulated <= found.slowest <= found.seconds
    assert found.work <= found.slept <= found.slowest
    assert re.match(r"5 steps of 2 processes, efficiency: 0\.\d{3} measured", str(found))
