"""`arkasr prepare --shar`: every layout, the same sets, and what happens to damaged audio and tar files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpora_on_disk import EGS, cuts, dropped, librispeech
from lhotse import CutSet
from own_audio import jsonl
from synthetic_corpus import contents

from arkasr.corpora.prepare import prepare
from arkasr.data import shar_writer
from arkasr.data.audio import read_waveform
from arkasr.data.manifests import read_cuts
from arkasr.data.shar import tar_file
from arkasr.errors import UserError

YAML = "name: calls\nlayout: jsonl\nlanguage: German\n"


def prepare_own(root: Path, data: Path, shar: bool = True, more: str = "") -> dict:
    (root / "corpus.yaml").write_text(YAML + more)
    prepare(str(root / "corpus.yaml"), "mini", str(root), str(data), 1, shar)
    return json.loads((data / "corpus.json").read_text())


def test_sets_have_the_same_cuts_in_the_same_order_with_audio_in_tar_files(tmp_path):
    root = librispeech(tmp_path / "c")
    sets, counts = {}, {}
    for name, shar in (("files", False), ("tars", True)):
        prepare(str(EGS / "librispeech" / "corpus.yaml"), "mini", str(root), str(tmp_path / name), 1, shar)
        facts = json.loads((tmp_path / name / "corpus.json").read_text())
        sets[name] = {each: cuts(tmp_path / name, each) for each in facts["sets"]}
        counts[name] = [{key: each[key] for key in ("cuts", "hours", "dropped")} for each in facts["sets"].values()]
    assert counts["files"] == counts["tars"]
    for each, plain in sets["files"].items():
        assert [cut.id for cut in sets["tars"][each]] == [cut.id for cut in plain]
        for old, new in zip(plain, sets["tars"][each], strict=True):
            assert old.supervisions[0].text == new.supervisions[0].text and old.duration == new.duration
            folder = "train" if each in ("train", "base", "td", "opd") else each
            assert tar_file(new).parent == tmp_path / "tars" / "shar" / folder
            np.testing.assert_array_equal(read_waveform(old).numpy(), read_waveform(new).numpy())
    by_lhotse = CutSet.from_shar(in_dir=str(tmp_path / "tars" / "shar" / "train"))
    assert [cut.id for cut in by_lhotse] == [cut.id for cut in sets["files"]["train"]]


def test_second_call_does_nothing_and_a_call_without_the_option_keeps_the_tar_files(tmp_path, capsys):
    jsonl(tmp_path)
    prepare_own(tmp_path, tmp_path / "data")
    before = contents(tmp_path / "data")
    capsys.readouterr()
    for shar in (True, False):
        prepare_own(tmp_path, tmp_path / "data", shar)
        assert "is already prepared" in capsys.readouterr().out
    assert contents(tmp_path / "data") == before


def test_option_on_prepared_data_prepares_again(tmp_path, capsys):
    jsonl(tmp_path)
    prepare_own(tmp_path, tmp_path / "data", shar=False)
    assert "tar_bytes" in prepare_own(tmp_path, tmp_path / "data")["sets"]["train"]
    assert "corpus.yaml, --shar or this program changed" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_damaged_tar_file_is_written_again(tmp_path, capsys, damage):
    jsonl(tmp_path)
    prepare_own(tmp_path, tmp_path / "data")
    before = contents(tmp_path / "data")
    tar = tmp_path / "data" / "shar" / "dev" / "recording.000000.tar"
    if damage == "missing":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes()[:-512])
    prepare_own(tmp_path, tmp_path / "data")
    assert "shar/dev/recording.000000.tar is missing or changed" in capsys.readouterr().out
    assert contents(tmp_path / "data") == before


def test_killed_call_continues_with_the_finished_shards(tmp_path, monkeypatch):
    jsonl(tmp_path)
    prepare_own(tmp_path, tmp_path / "whole")
    real, written = shar_writer.write_shard, []

    def stop(job):
        written.append(job.folder.name)
        if job.folder.name == "test":
            raise KeyboardInterrupt
        return real(job)

    monkeypatch.setattr(shar_writer, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_own(tmp_path, tmp_path / "data")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "shar").rglob("*.tar")}
    assert written == ["train", "dev", "test"] and len(times) == 2
    monkeypatch.setattr(shar_writer, "write_shard", real)
    facts = prepare_own(tmp_path, tmp_path / "data")
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert facts["sets"]["train"]["cuts"] == 6 and len(cuts(tmp_path / "data", "test")) == 2


def test_audio_damaged_in_the_middle_is_dropped_and_the_counts_follow(tmp_path, capsys):
    jsonl(tmp_path)
    wav = sorted(tmp_path.rglob("clip_03.wav"))[0]
    data = bytearray(wav.read_bytes())
    data[44:] = bytes(len(data) - 44)  # the header is intact, and all samples are zero
    wav.write_bytes(data)
    facts = prepare_own(tmp_path, tmp_path / "data", more="use: {base: labelled, td: [train], opd: all}\n")
    for name in ("train", "base", "td", "opd"):
        assert facts["sets"][name]["cuts"] == len(cuts(tmp_path / "data", name)) == 5
        seconds = sum(cut.duration for cut in cuts(tmp_path / "data", name))
        assert facts["sets"][name]["hours"] == pytest.approx(seconds / 3600, abs=1e-4)
    assert facts["uses"]["opd"]["cuts"] == 5 and facts["sets"]["train"]["dropped"] == {"silent audio": 1}
    assert [(name, reason) for name, _, reason in dropped(tmp_path / "data")] == [("train", "silent audio")]
    assert "train: 1 clips left out, because their audio cannot be read; 5 cuts" in capsys.readouterr().out


def test_shares_are_subsets_of_the_tar_files(tmp_path):
    jsonl(tmp_path, 2)
    prepare_own(tmp_path, tmp_path / "data", more="use: {base: 0.5, td: 0.5, opd: unlabelled}\n")
    whole = {cut.id: cut for cut in cuts(tmp_path / "data", "train")}
    for name, count in (("base", 2), ("td", 2), ("opd", 2)):
        found = cuts(tmp_path / "data", name)
        assert len(found) == count and all(whole[cut.id] == cut for cut in found)
    assert not list((tmp_path / "data" / "shar").glob("base*"))


def test_set_without_readable_audio_is_an_error(tmp_path):
    jsonl(tmp_path)
    for name in ("clip_06", "clip_07"):
        wav = next(tmp_path.rglob(f"{name}.wav"))
        data = bytearray(wav.read_bytes())
        data[44:] = bytes(len(data) - 44)
        wav.write_bytes(data)
    with pytest.raises(UserError, match="dev: the audio of none of 2 clips can be read; the first: silent audio"):
        prepare_own(tmp_path, tmp_path / "data")


def test_training_reads_the_tar_files_line_by_line_and_in_memory(tmp_path):
    from arkasr.config.schema import DataConfig
    from arkasr.data.training_cuts import open_manifest

    jsonl(tmp_path)
    prepare_own(tmp_path, tmp_path / "data")
    path = str(tmp_path / "data" / "base.jsonl.gz")
    for lazy in ("always", "never"):
        manifest = open_manifest(DataConfig(train=path, lazy=lazy))
        found = [clip.cut() for shard in range(manifest.num_shards) for _, clip in manifest.read(shard, 0)]
        assert len(found) == 6 and all(len(read_waveform(cut)) == cut.num_samples for cut in found)
    assert len(list(read_cuts(path))) == 6
