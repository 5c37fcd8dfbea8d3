"""Lhotse Shar: audio from tar files gives what Lhotse's own reader gives."""

from __future__ import annotations

import gzip
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_fixture import WORDS, cut_of, evaluation_batches, make_cut, write_cuts
from lhotse import CutSet, MultiCut, Recording, SupervisionSegment
from lhotse.shar import LazySharIterator

from arkasr.config.schema import DataConfig
from arkasr.data import shar
from arkasr.data.batches import load_batch
from arkasr.data.manifests import digest, read_cuts
from arkasr.data.sampling import TrainingBatches
from arkasr.data.training_cuts import open_manifest
from arkasr.errors import UserError

CASE = Path(__file__).parents[3] / "shared" / "cases" / "21-shar" / "shar"
NUM_CLIPS, PER_SHARD = 23, 5


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a folder with 23 clips and their manifest."""
    folder = tmp_path_factory.mktemp("plain")
    seconds = np.random.default_rng(3).uniform(0.2, 1.0, NUM_CLIPS).round(2)
    cuts = [make_cut(folder, f"clip.{i:02d}", seconds[i], WORDS[i % len(WORDS)]) for i in range(NUM_CLIPS)]
    write_cuts(folder / "cuts.jsonl.gz", cuts)
    return folder


@pytest.fixture
def folder(plain, tmp_path):
    """Return a Shar folder of these clips."""
    return write_shar(tmp_path / "shar", CutSet.from_file(plain / "cuts.jsonl.gz"))


def write_shar(folder: Path, cuts: CutSet, kind: str = "wav") -> Path:
    folder.mkdir()
    cuts.to_shar(str(folder), fields={"recording": kind}, shard_size=PER_SHARD)
    return folder


def settings(path, **changes) -> DataConfig:
    fixed = {"max_seconds": 2.5, "max_cuts": 3, "num_buckets": 3, "buffer_clips": 7}
    return DataConfig(**{"train": str(path)} | fixed | changes)


def drawn(batches) -> list[tuple]:
    return [(batch.ids, batch.texts, [w.numpy().tobytes() for w in batch.waveforms]) for batch in batches]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_shar_gives_the_audio_of_lhotse(folder, lazy):
    manifest = open_manifest(settings(folder, lazy=lazy))
    clips = sorted((c.cut() for s in range(manifest.num_shards) for _, c in manifest.read(s, 0)), key=lambda c: c.id)
    batch, reference = load_batch(clips), list(LazySharIterator(in_dir=folder))
    assert batch.ids == [cut.id for cut in reference] and batch.failures == []
    assert batch.texts == [cut.supervisions[0].text for cut in reference]
    for waveform, cut in zip(batch.waveforms, reference, strict=True):
        np.testing.assert_array_equal(waveform, cut.load_audio()[0])


@pytest.mark.parametrize("lazy", ["always", "never"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_is_exact(folder, lazy, world_size):
    config = settings(folder, lazy=lazy)
    whole = TrainingBatches(config, 1, world_size - 1, world_size)
    found, states = [], []
    for batch in islice(whole, 16):
        found += drawn([batch])
        states.append(whole.state_dict())
    assert states[-1]["epoch"] >= 1
    for number in (0, 4, 9):
        resumed = TrainingBatches(config, 1, world_size - 1, world_size)
        resumed.load_state_dict(states[number])
        assert drawn(islice(resumed, 4)) == found[number + 1 : number + 5]


def test_files_patterns_and_folders_of_shar_give_the_same_clips(folder, tmp_path):
    everything = sorted(cut.id for cut in read_cuts(str(folder)))
    (folder / "features.000000.jsonl.gz").write_bytes(gzip.compress(b"not cuts"))  # another field is no shard
    for path in (folder, folder / "cuts.*.jsonl.gz", tmp_path / "sha?"):
        assert sorted(cut.id for cut in read_cuts(str(path))) == everything and len(everything) == NUM_CLIPS
    one = evaluation_batches(folder / "cuts.000001.jsonl.gz", 100.0)
    assert sorted(name for batch in one for name in batch.ids) == [f"clip.{i:02d}" for i in range(5, 10)]


def test_opening_reads_no_audio(folder, monkeypatch):
    monkeypatch.setattr(shar, "_recording", None)
    monkeypatch.setattr(shar, "_offsets", None)
    for lazy in ("always", "never"):
        open_manifest(settings(folder, lazy=lazy, hours=0.001))
    assert len(list(read_cuts(str(folder)))) == NUM_CLIPS and len(digest(str(folder))) == 64


def test_split_trimmed_resampled_and_mixed_clips(tmp_path):
    audio = np.random.default_rng(5).uniform(-0.5, 0.5, (2 * 16000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "two.wav", audio, 16000, subtype="FLOAT")
    recording = Recording.from_file(tmp_path / "two.wav")
    spoken = [SupervisionSegment(f"s{i}", "two", i + 0.0, 1.0, text=str(i), language="English") for i in range(2)]
    slow = cut_of(tmp_path / "slow.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000), "slow", rate=8000)
    cuts = CutSet.from_cuts([MultiCut("two", 0.0, 2.0, [0, 1], spoken, recording=recording), slow])
    batch = load_batch(read_cuts(str(write_shar(tmp_path / "shar", cuts, "flac"))))
    assert (batch.ids, batch.texts, batch.failures) == (["two-0", "two-1", "slow"], ["0", "1", "slow"], [])
    np.testing.assert_allclose(batch.waveforms[1], audio[16000:].mean(axis=1), atol=2e-4)  # 16 bits
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(batch.waveforms[2][200:-200], expected[200:-200], atol=0.01)


def test_labelled_cuts_keep_their_place_in_the_tar_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # relative paths
    path = write_cuts(tmp_path / "td_teacher.jsonl.gz", list(read_cuts(folder.name)))
    monkeypatch.chdir("/")
    (batch,) = evaluation_batches(path, 1e9)
    assert len(batch.ids) == NUM_CLIPS and batch.failures == []


def test_damaged_shar_names_the_file(folder, tmp_path):
    short = folder / "recording.000001.tar"
    content = short.read_bytes()
    copy = tmp_path / "copy"
    for damaged, failing in ((content[:40000], 4), (content[:512], 5), (b"", 5), (b"junk" * 900, 5)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        (copy / short.name).write_bytes(damaged)
        shar._offsets.cache_clear()
        batch = load_batch(read_cuts(str(copy)))
        assert len(batch.ids) >= NUM_CLIPS - 5 and 1 <= len(batch.failures) <= failing
        for failure in batch.failures:
            assert failure.kind == "unreadable audio" and str(copy / short.name) in str(failure)
    shutil.copy(folder / "recording.000000.tar", copy / short.name)  # entries of other clips
    shar._offsets.cache_clear()
    failures = load_batch(read_cuts(str(copy))).failures
    assert [one.id for one in failures] == [f"clip.{i:02d}" for i in range(5, 10)]
    assert f"entry 1 of {copy}/recording.000001.tar belongs to clip.00" in failures[0].detail
    (copy / short.name).unlink()
    with pytest.raises(UserError, match=r"cuts.000001.jsonl.gz: its audio recording.000001.tar is not in this folder"):
        read_cuts(str(copy))
    (copy / "cuts.000001.jsonl.gz").unlink()
    (copy / "recording.000001.tar").touch()
    with pytest.raises(UserError, match=r"recording.000001.tar: its file of cuts, cuts.000001.jsonl.gz, is not in"):
        read_cuts(str(copy))
    shutil.copy(folder / "cuts.000001.jsonl.gz", copy)
    for tar in copy.glob("*.tar"):
        tar.unlink()
    failures = load_batch(read_cuts(str(copy))).failures
    assert len(failures) == NUM_CLIPS and {one.kind for one in failures} == {"missing audio file"}
    assert f"looked for {copy}/recording.000000.tar" in str(failures[0])


def test_digest_follows_cuts_and_tar_files(folder, tmp_path):
    before = digest(str(folder))
    shutil.copytree(folder, tmp_path / "moved")
    assert digest(str(tmp_path / "moved")) == before
    with (folder / "recording.000002.tar").open("ab") as file:
        file.write(bytes(512))
    assert digest(str(folder)) != before
    (tmp_path / "moved" / "cuts.000004.jsonl.gz").unlink()
    assert digest(str(tmp_path / "moved")) != before


@pytest.mark.skipif(not CASE.is_dir(), reason="needs ../shared/cases")
def test_shar_of_the_cases_is_read_completely():
    (batch,) = evaluation_batches(str(CASE), 1e9)
    assert batch.failures == [] and len(batch.ids) == len(list(LazySharIterator(in_dir=CASE)))
