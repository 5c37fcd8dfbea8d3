"""A manifest as Shar: the tar files hold the audio of the files, and a killed call continues."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_fixture import cut_of, make_cut
from lhotse import CutSet, Recording, SupervisionSegment

from arkasr.data import shar_shard, shar_writer
from arkasr.data.audio import read_waveform
from arkasr.data.blocks import order_hash, write_cuts, write_lines
from arkasr.data.manifests import read_cuts
from arkasr.data.shar import OFFSET, PLACE
from arkasr.data.shar_writer import select, write_shar

NUM_CLIPS = 130  # with one block per shard, three shards


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shar_writer, "SHARD_BLOCKS", 1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a folder with a manifest of whole files, a segment, two channels, and files of several formats."""
    folder = tmp_path_factory.mktemp("plain")
    cuts = [make_cut(folder, f"clip.{i:03d}", 0.1 + i / 2000, "red dogs") for i in range(NUM_CLIPS)]
    cuts[0] = cuts[0].with_id("first")
    noise = np.random.default_rng(0).normal(0, 0.1, (8000, 2))
    cuts.append(_segment(make_cut(folder, "long", 2.0, "blue cats"), 0.5, 0.75))
    cuts.append(_of_file(folder / "two.wav", noise, 16000))
    cuts.append(_of_file(folder / "slow.flac", noise[:, 0], 8000))
    cuts.append(_of_file(folder / "small.ogg", noise[:, 0], 16000))
    cuts.append(cut_of(folder / "loud.wav", 2.0 * np.sin(np.arange(4000) / 5), "loud"))
    write_cuts(folder / "train.jsonl.gz", sorted(cuts, key=lambda cut: order_hash(cut.id)))
    return folder


def _segment(cut, start, seconds):
    part = cut.truncate(offset=start, duration=seconds, preserve_id=False).with_id("segment")
    part.supervisions = [SupervisionSegment("segment", "long", 0.0, seconds, text="blue cats", language="English")]
    return part


def _of_file(path: Path, samples, rate):
    soundfile.write(path, samples, rate)
    cut = Recording.from_file(path).to_cut().with_id(path.stem).resample(16000)
    cut.supervisions = [SupervisionSegment(path.stem, path.stem, 0.0, cut.duration, text="a", language="English")]
    return cut


def manifest_lines(path: Path) -> list:
    return [cut.to_dict() for cut in read_cuts(str(path))]


def write(plain: Path, place: Path, num_jobs: int = 1):
    place.mkdir(exist_ok=True)
    return write_shar(plain / "train.jsonl.gz", place / "shar" / "train", place / "train.jsonl.gz", num_jobs)


def test_clips_of_the_new_manifest_equal_those_of_the_files(plain, tmp_path, small_shards):
    written = write(plain, tmp_path)
    before, after = list(read_cuts(str(plain / "train.jsonl.gz"))), list(read_cuts(str(tmp_path / "train.jsonl.gz")))
    assert [cut.id for cut in after] == [cut.id for cut in before] and written.clips == len(before)
    for old, new in zip(before, after, strict=True):
        assert new.duration == old.duration
        assert [one.text for one in new.supervisions] == [one.text for one in old.supervisions]
        # 16 bits have steps of 2^-15. Ogg is copied, so that nothing is lost. Full scale is 1
        expected = read_waveform(old).clamp(-1, 1)
        np.testing.assert_allclose(read_waveform(new).numpy(), expected.numpy(), atol=0 if old.id == "small" else 4e-5)
        assert Path(new.custom[PLACE][0]).is_relative_to(tmp_path)


def test_folder_is_a_shar_folder_for_lhotse_and_for_arkasr(plain, tmp_path, small_shards):
    write(plain, tmp_path)
    by_lhotse = {cut.id: cut for cut in CutSet.from_shar(in_dir=str(tmp_path / "shar" / "train"))}
    by_arkasr = list(read_cuts(str(tmp_path / "shar" / "train")))
    assert [cut.id for cut in by_arkasr] == [cut.id for cut in read_cuts(str(tmp_path / "train.jsonl.gz"))]
    for cut in by_arkasr:
        np.testing.assert_array_equal(by_lhotse[cut.id].load_audio()[0], read_waveform(cut).numpy())


def test_compressed_whole_files_are_copied_byte_for_byte(plain, tmp_path):
    write(plain, tmp_path)
    data = b"".join(path.read_bytes() for path in (tmp_path / "shar" / "train").glob("*.tar"))
    assert (plain / "small.ogg").read_bytes() in data and (plain / "slow.flac").read_bytes() in data
    assert (plain / "two.wav").read_bytes() not in data


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(plain, tmp_path, small_shards):
    write(plain, tmp_path / "one", 1)
    write(plain, tmp_path / "two", 2)
    files = sorted((tmp_path / "one" / "shar" / "train").iterdir())
    assert len(files) == 6
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / "shar" / "train" / file.name).read_bytes()


def test_interrupted_call_continues_and_keeps_finished_shards(plain, tmp_path, small_shards, monkeypatch):
    write(plain, tmp_path / "whole")
    real, calls = shar_shard._audio, []

    def stop(cut, shard):
        calls.append(cut.id)
        if len(calls) == 70:
            raise KeyboardInterrupt
        return real(cut, shard)

    monkeypatch.setattr(shar_shard, "_audio", stop)
    with pytest.raises(KeyboardInterrupt):
        write(plain, tmp_path / "cut")
    calls.clear()
    monkeypatch.setattr(shar_shard, "_audio", lambda cut, shard: calls.append(cut.id) or real(cut, shard))
    write(plain, tmp_path / "cut")
    total = NUM_CLIPS + 5
    assert len(calls) == total - 64  # the first shard was finished
    for file in (tmp_path / "whole" / "shar" / "train").iterdir():
        assert file.read_bytes() == (tmp_path / "cut" / "shar" / "train" / file.name).read_bytes()
    assert not list((tmp_path / "cut" / "shar" / "train").glob(".*"))


def test_shards_of_other_cuts_are_written_again_and_spare_ones_deleted(plain, tmp_path, small_shards):
    write(plain, tmp_path)
    cuts = list(read_cuts(str(plain / "train.jsonl.gz")))[1:70]
    write_cuts(tmp_path / "less.jsonl.gz", cuts)
    folder = tmp_path / "shar" / "train"
    written = write_shar(tmp_path / "less.jsonl.gz", folder, tmp_path / "train.jsonl.gz", 1)
    assert written.clips == 69 and len(written.tar_bytes) == 2 and len(list(folder.iterdir())) == 4
    assert [cut.id for cut in CutSet.from_shar(in_dir=str(folder))] == [cut.id for cut in cuts]


@pytest.mark.parametrize("damage", ["tar", "cuts"])
def test_damaged_shard_is_written_again(plain, tmp_path, small_shards, damage):
    write(plain, tmp_path)
    folder = tmp_path / "shar" / "train"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if damage == "tar":
        (folder / "recording.000001.tar").write_bytes(b"short")
    else:
        (folder / "cuts.000001.jsonl.gz").unlink()
    write(plain, tmp_path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_unreadable_audio_is_left_out_with_its_reason_and_a_subset_follows(plain, tmp_path, small_shards):
    shutil.copytree(plain, tmp_path / "own")
    cuts = [cut.to_dict() for cut in read_cuts(str(plain / "train.jsonl.gz"))]
    for item in cuts:
        source = item["recording"]["sources"][0]
        source["source"] = str(tmp_path / "own" / Path(source["source"]).name)
    write_lines(tmp_path / "m.jsonl.gz", map(json.dumps, cuts))
    bad = cuts[10]["id"]
    Path(cuts[10]["recording"]["sources"][0]["source"]).write_bytes(b"not audio")
    written = write_shar(tmp_path / "m.jsonl.gz", tmp_path / "shar", tmp_path / "new.jsonl.gz", 1)
    assert [(each["id"], each["reason"]) for each in written.failed] == [(bad, "unreadable audio")]
    assert written.clips == len(cuts) - 1
    names = [item["id"] for item in cuts[::2] if item["id"] != bad]
    select(tmp_path / "new.jsonl.gz", names, tmp_path / "newpart.jsonl.gz")
    whole = {item["id"]: item for item in manifest_lines(tmp_path / "new.jsonl.gz")}
    assert manifest_lines(tmp_path / "newpart.jsonl.gz") == [whole[name] for name in names]


def test_position_in_the_tar_file_saves_reading_its_headers(plain, tmp_path, monkeypatch):
    write(plain, tmp_path)
    monkeypatch.setattr("arkasr.data.shar._offsets", None)
    cut = next(iter(read_cuts(str(tmp_path / "train.jsonl.gz"))))
    assert len(read_waveform(cut)) == cut.num_samples
    cut.custom[OFFSET] += 512
    with pytest.raises(Exception, match="belongs to|holds no audio|ends at entry|unreadable"):
        read_waveform(cut)


def test_manifest_without_cuts_gives_an_empty_folder(tmp_path):
    write_cuts(tmp_path / "none.jsonl.gz", [])
    written = write_shar(tmp_path / "none.jsonl.gz", tmp_path / "shar", tmp_path / "new.jsonl.gz", 1)
    assert written.clips == 0 and json.loads((tmp_path / ".shar" / "000000.json").read_text())["offsets"] == []
