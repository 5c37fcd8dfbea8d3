"""Batches: distribution of clips over ranks, resuming, and audio that cannot be read."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from corpus_fixture import WORDS, cut_of, evaluation_batches, make_cut, write_cuts
from lhotse import AudioSource, MonoCut, MultiCut, Recording, SupervisionSegment

from arkasr.config.schema import DataConfig
from arkasr.data.batches import Batch, load_batch
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import counts
from arkasr.data.sampling import TrainingBatches
from arkasr.errors import UserError

NUM_CLIPS = 23


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return the path of a manifest with clips of 0.2 to 1 s."""
    folder = tmp_path_factory.mktemp("clips")
    seconds = np.random.default_rng(3).uniform(0.2, 1.0, NUM_CLIPS).round(2)
    cuts = [make_cut(folder, f"clip-{i:02d}", seconds[i], WORDS[i % len(WORDS)]) for i in range(NUM_CLIPS)]
    return write_cuts(folder / "cuts.jsonl.gz", cuts)


def config(manifest: str, **changes) -> DataConfig:
    return DataConfig(**{"train": manifest, "max_seconds": 2.5, "max_cuts": 3, "num_buckets": 3} | changes)


def epoch(batches: TrainingBatches) -> list[Batch]:
    """Return the batches of the rest of the current epoch."""
    drawn, number = [], batches.epoch
    for batch in batches:
        if batches.epoch != number:
            return drawn
        drawn.append(batch)
    raise AssertionError("training batches came to an end")


def ids(batches) -> list[list[str]]:
    return [batch.ids for batch in batches]


def original(name: str) -> str:
    return name.partition("_dup")[0]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_get_disjoint_clips_and_equally_many_batches(manifest, world_size):
    drawn = [epoch(TrainingBatches(config(manifest), 1, rank, world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in drawn}) == 1
    seen = Counter(name for batches in drawn for batch in batches for name in batch.ids)
    assert max(seen.values()) == 1
    copies = [name for name in seen if "_dup" in name]
    assert len(seen) - len(copies) == NUM_CLIPS  # an epoch covers all
    assert len(copies) < world_size
    last = {original(name) for batches in drawn for name in batches[-1].ids}
    assert {original(name) for name in copies} <= last  # copies are only in the last group


@pytest.mark.parametrize("num_clips", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("world_size", [1, 2])
def test_training_batches_accept_few_clips_of_one_length(tmp_path, num_clips, world_size):
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one") for i in range(num_clips)]
    settings = config(write_cuts(tmp_path / "cuts.jsonl.gz", cuts))
    drawn = [epoch(TrainingBatches(settings, 1, rank, world_size)) for rank in range(world_size)]
    assert {original(name) for batches in drawn for batch in batches for name in batch.ids} == {c.id for c in cuts}
    assert all(drawn) and len({len(batches) for batches in drawn}) == 1


def test_batches_respect_their_limits(manifest):
    drawn = epoch(TrainingBatches(config(manifest), 1))
    assert all(len(batch.ids) <= 3 and batch.seconds <= 2.5 for batch in drawn)
    assert max(len(batch.ids) for batch in drawn) == 3
    sizes = [len(batch.ids) for batch in epoch(TrainingBatches(config(manifest, max_seconds=0.1), 1))]
    assert sizes == [1] * NUM_CLIPS  # a longer clip forms its own batch


def test_training_batches_depend_on_seed_and_epoch_only(manifest):
    drawn = ids(islice(TrainingBatches(config(manifest), 1), 60))
    repeated = ids(islice(TrainingBatches(config(manifest), 1), 60))
    other = ids(islice(TrainingBatches(config(manifest), 2), 60))
    assert drawn == repeated and drawn != other
    flat = [name for batch in drawn for name in batch]
    first, second = flat[:NUM_CLIPS], flat[NUM_CLIPS : 2 * NUM_CLIPS]
    assert len(set(first)) == len(set(second)) == NUM_CLIPS and first != second


@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_at_any_batch_gives_the_same_batches(manifest, world_size):
    whole = TrainingBatches(config(manifest), 1, world_size - 1, world_size)
    drawn, states = [], []
    for batch in islice(whole, 30):
        drawn.append(batch.ids)
        states.append(whole.state_dict())
    assert states[-1]["epoch"] >= 1
    for number, state in enumerate(states[:-3]):
        resumed = TrainingBatches(config(manifest), 1, world_size - 1, world_size)
        resumed.load_state_dict(state)
        assert ids(islice(resumed, 3)) == drawn[number + 1 : number + 4]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_loader_workers_change_neither_order_nor_position(manifest, num_workers):
    drawn = ids(islice(TrainingBatches(config(manifest), 1), 16))
    working = TrainingBatches(config(manifest, num_workers=num_workers), 1)
    iterator = iter(working)
    assert ids(islice(iterator, 6)) == drawn[:6]
    state = working.state_dict()
    iterator.close()
    assert (state["epoch"], state["consumed"], state["world_size"]) == (
        0,
        6,
        1,
    )  # not the batches read ahead
    resumed = TrainingBatches(config(manifest, num_workers=num_workers), 1)
    resumed.load_state_dict(state)
    assert ids(islice(resumed, 10)) == drawn[6:]  # past the end of the epoch


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_audio_is_dropped_counted_and_named(tmp_path, capfd, num_workers):
    good = [make_cut(tmp_path, f"good-{i}", 0.5, "one two") for i in range(2)]
    bad = {name: make_cut(tmp_path, name, 0.5, "three") for name in ("absent", "cut-off", "empty", "not-a-number")}
    (tmp_path / "absent.wav").unlink()
    (tmp_path / "cut-off.wav").write_bytes(b"RIFF")
    cut_of(tmp_path / "empty.wav", np.zeros(0), "three")
    cut_of(tmp_path / "not-a-number.wav", np.array([0.1, np.nan] * 4000), "three")
    path = write_cuts(tmp_path / "cuts.jsonl.gz", [good[0], *bad.values(), good[1]])
    settings = config(path, max_seconds=100, max_cuts=10, num_buckets=1, num_workers=num_workers)
    (batch,) = epoch(TrainingBatches(settings, 1))
    assert sorted(batch.ids) == ["good-0", "good-1"] and batch.num_failed == 4
    assert len(batch.waveforms) == len(batch.texts) == len(batch.languages) == 2
    output = capfd.readouterr().out
    for name in bad:
        assert f"dropped {name} ({tmp_path / name}.wav): " in output


class NoMessage(MonoCut):
    """A cut whose decoder raises an exception without a message."""

    def load_audio(self, **kwargs):
        raise AssertionError


def test_unsuitable_audio_is_dropped_and_named(tmp_path, capsys):
    good = make_cut(tmp_path, "good", 0.5, "one two")
    loud = cut_of(tmp_path / "loud.wav", np.array([-12000.0, 3000.0] * 4000), "one")
    silent = cut_of(tmp_path / "silent.wav", np.zeros(8000), "one")
    soundfile.write(tmp_path / "eight.wav", np.ones((8000, 8)), 16000)
    eight = Recording("eight", [AudioSource("file", [0], str(tmp_path / "eight.wav"))], 16000, 8000, 0.5)
    bad = {
        "several channels: the file has 8, its manifest says 1": MonoCut("eight", 0, 0.5, 0, recording=eight),
        "audio at the scale of integers: the peak is 12000, full scale is 1": loud,
        "silent audio: all samples are 0": silent,
        "unreadable audio: AssertionError: ": NoMessage("odd", 0, 0.5, 0, recording=good.recording),
        "no audio in the manifest: the cut has no recording": MonoCut("none", 0, 0.5, 0),
        "audio unlike its manifest: the cut begins at -1 s": MonoCut("early", -1.0, 0.5, 0, recording=good.recording),
    }
    batch = load_batch([*bad.values(), good])
    assert (batch.ids, batch.num_failed) == (["good"], 6)
    assert [failure.id for failure in batch.failures] == ["eight", "loud", "silent", "odd", "none", "early"]
    output = capsys.readouterr().out
    for reason, cut in bad.items():
        source = cut.recording.sources[0].source if cut.recording else "no recording"
        assert f"dropped {cut.id} ({source}): {reason}" in output


def test_missing_audio_names_the_place_that_was_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording = Recording("a", [AudioSource("file", [0], "audio/a.wav")], 16000, 8000, 0.5)
    batch = load_batch([MonoCut("a", 0, 0.5, 0, recording=recording)])
    assert str(batch.failures[0]).startswith(
        f"a (audio/a.wav): missing audio file: looked for {tmp_path}/audio/a.wav; "
    )


def test_failures_give_one_line_without_the_reports_of_other_decoders(tmp_path):
    texts = []
    for name, content in (("junk", b"RIFF"), ("text", b"hello"), ("nothing", b"")):
        cut = make_cut(tmp_path, name, 0.5, "one")
        (tmp_path / f"{name}.wav").write_bytes(content)
        texts.append(str(*load_batch([cut]).failures))
    (tmp_path / "folder.wav").mkdir()
    recording = Recording("a", [AudioSource("file", [0], str(tmp_path / "folder.wav"))], 16000, 8000, 0.5)
    texts.append(str(*load_batch([MonoCut("a", 0, 0.5, 0, recording=recording)]).failures))
    for text in texts:
        assert "unreadable audio: " in text and "\n" not in text and "Details" not in text and not text.endswith(": ")
    assert "Format not recognised" in texts[0] and "Is a directory" in texts[3]


def test_reasons_are_counted_by_kind():
    kinds = ["missing audio file"] * 8 + ["several channels"] * 4
    assert counts(kinds) == counts(Counter(kinds)) == "8 missing audio file, 4 several channels"
    assert counts([]) == ""


@pytest.mark.parametrize("samples", [16000, 4001])
def test_channels_of_a_clip_are_mixed(tmp_path, samples):
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, (samples, 2)).astype(np.float32)
    soundfile.write(tmp_path / "two.wav", audio, 16000, subtype="FLOAT")
    recording = Recording.from_file(tmp_path / "two.wav")
    both, right = MultiCut("both", 0, recording.duration, [0, 1], recording=recording), recording.to_cut().to_mono()[1]
    for cut in (both, right):
        cut.supervisions = [SupervisionSegment(cut.id, "two", 0.0, recording.duration, text="one")]
    batch = load_batch([both, right])
    np.testing.assert_allclose(batch.waveforms[0], audio.mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(batch.waveforms[1], audio[:, 1])


def test_batch_holds_audio_text_and_language(tmp_path):
    cut = make_cut(tmp_path, "a", 0.25, "red dogs")
    silent = make_cut(tmp_path, "b", 0.5, "")
    silent.supervisions[0].text, silent.supervisions[0].language = None, "Chinese"
    batch = load_batch([cut, silent])
    assert (batch.ids, batch.texts, batch.languages) == (["a", "b"], ["red dogs", ""], ["English", "Chinese"])
    assert [len(w) for w in batch.waveforms] == [4000, 8000] and batch.seconds == 0.75
    assert all(w.dtype == torch.float32 and w.ndim == 1 for w in batch.waveforms)
    chosen = batch.select([1])
    assert (chosen.ids, chosen.texts) == (["b"], [""]) and torch.equal(chosen.waveforms[0], batch.waveforms[1])


def drawn(settings: DataConfig, seed: int = 1) -> list[str]:
    """Return the clip ids of one epoch, sorted."""
    return sorted(name for batch in epoch(TrainingBatches(settings, seed)) for name in batch.ids)


def test_hours_select_the_same_clips_for_every_seed(manifest):
    total = sum(cut.duration for cut in read_cuts(manifest))
    kept = [drawn(config(manifest, hours=total / 2 / 3600), seed) for seed in (1, 2)]
    assert kept[0] == kept[1]  # the seed only changes the order
    small = set(drawn(config(manifest, hours=total / 4 / 3600)))
    assert small < set(kept[0]) < set(read_cuts(manifest).ids)
    durations = {cut.id: cut.duration for cut in read_cuts(manifest)}
    seconds = sum(durations[name] for name in kept[0])
    assert total / 2 <= seconds < total / 2 + max(durations.values())
    assert sorted(kept[0]) != sorted(durations)[: len(kept[0])]  # drawn at random, not the first ones
    assert len(drawn(config(manifest, hours=100.0))) == NUM_CLIPS


def test_clips_of_other_lengths_are_left_out_and_counted(manifest, capsys):
    inside = [cut.id for cut in read_cuts(manifest) if 0.4 <= cut.duration <= 0.8]
    assert 0 < len(inside) < NUM_CLIPS
    drawn = epoch(TrainingBatches(config(manifest, min_clip_seconds=0.4, max_clip_seconds=0.8), 1))
    assert sorted(name for batch in drawn for name in batch.ids) == inside
    assert f"{NUM_CLIPS - len(inside)} of {NUM_CLIPS} cuts left out" in capsys.readouterr().out


def test_manifest_without_suitable_cuts_is_an_error(manifest, tmp_path):
    with pytest.raises(UserError, match=r"cuts.jsonl.gz: no cut lasts between 5 and 9 s \(data.min_clip_seconds"):
        TrainingBatches(config(manifest, min_clip_seconds=5.0, max_clip_seconds=9.0), 1)
    with pytest.raises(UserError, match=r"absent.jsonl.gz: no such manifest; run the recipe from --stage 1"):
        TrainingBatches(config(str(tmp_path / "absent.jsonl.gz")), 1)
    write_cuts(tmp_path / "none.jsonl.gz", [])
    with pytest.raises(UserError, match="none.jsonl.gz: holds no cuts"):
        TrainingBatches(config(str(tmp_path / "none.jsonl.gz")), 1)


def test_evaluation_batches_hold_every_cut_once_longest_first(manifest):
    drawn = evaluation_batches(manifest, 2.0)
    assert sorted(name for batch in drawn for name in batch.ids) == sorted(read_cuts(manifest).ids)
    lengths = [len(w) for batch in drawn for w in batch.waveforms]
    assert lengths == sorted(lengths, reverse=True)
    padded = [max(map(len, batch.waveforms)) * len(batch.ids) / 16000 for batch in drawn]
    assert max(padded) <= 2.0 and max(len(batch.ids) for batch in drawn) > 1
    assert [len(batch.ids) for batch in evaluation_batches(manifest, 0.01)] == [1] * NUM_CLIPS


def test_evaluation_batches_leave_out_done_cuts(manifest):
    everything = sorted(read_cuts(manifest).ids)
    done = set(everything[::3])
    left = [name for batch in evaluation_batches(manifest, 2.0, sorted(done)) for name in batch.ids]
    assert sorted(left) == sorted(set(everything) - done)
    assert evaluation_batches(manifest, 2.0, everything) == []


@pytest.mark.parametrize("in_manifest", [True, False])
def test_audio_of_another_rate_loads_at_16_khz(tmp_path, capsys, in_manifest):
    cut = cut_of(tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000), "one", rate=8000)
    path = write_cuts(tmp_path / "cuts.jsonl.gz", [cut.resample(16000) if in_manifest else cut])
    (batch,) = evaluation_batches(path, 10.0)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    np.testing.assert_allclose(batch.waveforms[0][200:-200], expected[200:-200], atol=0.01)
    assert ("1 of 1 cuts are resampled from 8000 to 16000 Hz" in capsys.readouterr().out) != in_manifest
