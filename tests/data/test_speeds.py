"""Speed perturbation: the samples against an analytic signal, the draw, limits of length, hours and resuming."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from corpus_fixture import cut_of, make_cut, metrics, write_cuts

from arkasr.config.schema import AugmentConfig, DataConfig
from arkasr.data.audio import read_waveform
from arkasr.data.lazy_cut import LazyCut
from arkasr.data.sampling import TrainingBatches
from arkasr.data.speeds import Speeds
from arkasr.training.train import train

THREE = [0.9, 1.0, 1.1]
TONES = ((310.0, 0.2, 0.4), (1730.0, 0.1, 2.0), (2600.0, 0.05, 1.1))  # hertz, amplitude, phase


def reference_signal(seconds: np.ndarray) -> np.ndarray:
    return sum(level * np.sin(2 * np.pi * hertz * seconds + phase) for hertz, level, phase in TONES)


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_read_waveform_at_a_speed_equals_the_signal_at_scaled_times(tmp_path, rate, speed):
    """Ko et al. 2015: the output is x(a t) for the input x(t)."""
    cut = cut_of(tmp_path / "tones.wav", reference_signal(np.arange(rate) / rate), "text", rate)
    found = read_waveform(cut, speed).numpy()
    assert len(found) == pytest.approx(16000 / speed, abs=1)
    middle = slice(400, -400)  # both ends see silence beyond the clip
    expected = reference_signal(speed * np.arange(len(found)) / 16000)
    assert found[middle] == pytest.approx(expected[middle], abs=2e-3)


def test_speed_one_reads_the_samples_unchanged(tmp_path):
    cut = make_cut(tmp_path, "a", 0.5, "text")
    assert np.array_equal(read_waveform(cut, 1.0).numpy(), cut.load_audio()[0])


def drawn(seconds: float, clips: int = 3000, epoch: int = 0, seed: int = 1, **limits: float) -> list[LazyCut]:
    speeds = Speeds(AugmentConfig(speeds=THREE), DataConfig(**limits), seed)
    return [speeds.of(LazyCut(seconds, 1, None), epoch, (i, 0, 1)) for i in range(clips)]


def test_speeds_are_drawn_uniformly_and_anew_in_every_epoch():
    first, again, second = drawn(3.0), drawn(3.0), drawn(3.0, epoch=1)
    assert first == again
    counts = Counter(clip.speed for clip in first)
    assert set(counts) == set(THREE) and all(abs(n - 1000) < 4 * 26 for n in counts.values())  # 4 standard deviations
    same = sum(a.speed == b.speed for a, b in zip(first, second))
    assert abs(same - 1000) < 4 * 26
    assert abs(sum(a.speed == b.speed for a, b in zip(first, drawn(3.0, seed=2))) - 1000) < 4 * 26
    assert all(clip.seconds == 3.0 / clip.speed for clip in first)


def test_speeds_keep_clips_within_the_limits_of_length(monkeypatch, capsys):
    monkeypatch.setattr(LazyCut, "cut", lambda self: type("Named", (), {"id": "long"}))
    assert {clip.speed for clip in drawn(29.0, max_clip_seconds=30.0)} == {1.0, 1.1}
    assert "long: lasts 29 s and is read at 1, 1.1, as are others of its length" in capsys.readouterr().out
    speeds = Speeds(AugmentConfig(speeds=[0.8, 0.9]), DataConfig(max_clip_seconds=30.0), 1)
    assert speeds.of(LazyCut(29.0, 1, None), 0, (0, 0, 1)) == LazyCut(29.0, 1, None)
    assert "its own speed only" in capsys.readouterr().out


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speeds")
    return write_cuts(folder / "train.jsonl", [make_cut(folder, f"c{i:02d}", 0.5 + i / 50, "one") for i in range(20)])


def batches(manifest, rank=0, ranks=1, **changes):
    config = DataConfig(train=manifest, **{"max_seconds": 2.5, "max_cuts": 4, "num_buckets": 2} | changes)
    return TrainingBatches(config, 1, rank, ranks, augment=AugmentConfig(speeds=THREE))


def heard(found) -> list[tuple[str, int]]:
    return [(name, len(waveform)) for batch in found for name, waveform in zip(batch.ids, batch.waveforms)]


@pytest.mark.parametrize("changes", [{}, {"lazy": "always"}, {"num_workers": 2}])
def test_training_batches_count_audio_at_its_speed(manifest, changes):
    loader, epochs = batches(manifest, **changes), ([], [], [])
    for batch in loader:
        if loader.epoch == 3:
            break
        assert len(batch.ids) == 1 or len(batch.ids) * max(map(len, batch.waveforms)) <= 2.5 * 16000 + 4
        epochs[loader.epoch].append(batch)
    lengths = [dict(heard(found)) for found in epochs]
    own = {f"c{i:02d}": 0.5 + i / 50 for i in range(20)}
    for found, length in zip(epochs, lengths):
        assert length.keys() == own.keys() and len(heard(found)) == 20
        ratios = {round(own[name] * 16000 / n, 2) for name, n in length.items()}
        assert ratios == set(THREE)
        assert sum(batch.covered for batch in found) == pytest.approx(sum(own.values()), rel=1e-9)
        assert sum(batch.drawn for batch in found) == pytest.approx(sum(length.values()) / 16000, abs=20 / 16000)
    assert lengths[0] != lengths[1] != lengths[2]


def test_resumed_batches_have_the_speeds_of_an_uninterrupted_run(manifest):
    whole = heard(islice(batches(manifest), 24))
    for stop in (3, 11):
        first = batches(manifest)
        begun = heard(islice(first, stop))
        rest = batches(manifest)
        rest.load_state_dict(first.state_dict())
        assert begun + heard(islice(rest, 24 - stop)) == whole


def test_ranks_and_one_process_read_a_clip_at_the_same_speed(manifest):
    alone = dict(heard(islice(batches(manifest), 8)))
    parts = [dict(heard(islice(batches(manifest, rank, 2), 3))) for rank in (0, 1)]
    assert parts[0] and parts[1] and all(alone.get(name, n) == n for part in parts for name, n in part.items())


def test_run_of_one_epoch_reads_every_clip_once_at_any_speed(conf, datadir, tmp_path):
    hours = {}
    for speeds in ("[]", "[0.8]"):
        changes = [f"augment.speeds={speeds}", "train.epochs=1", "train.eval_every=0"]
        train(str(conf), "base", str(tmp_path / speeds), str(datadir), changes)
        rows = metrics(tmp_path / speeds / "base")
        assert sum(row["clips"] for row in rows) == 8 and rows[-1]["epochs_seen"] == pytest.approx(1)
        hours[speeds] = rows[-1]["hours_seen"]
    assert hours["[0.8]"] == pytest.approx(hours["[]"] / 0.8, rel=1e-3)
