"""Audio of dev and test sets that also stands in the training set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_on_disk import librispeech, run

from arkasr.corpora import leaks
from arkasr.corpora.prepare import prepare
from arkasr.errors import UserError

YAML = "name: calls\nlayout: jsonl\nlanguage: German\n"


def write_rows(root: Path, **parts: list[dict]) -> Path:
    for part, rows in parts.items():
        (root / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def sound(path: Path, seed: int, seconds: float = 1.0) -> str:
    samples = np.random.default_rng(seed).integers(-9000, 9000, round(16000 * seconds), dtype=np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000, subtype="PCM_16")
    return path.name


def prepare_own(root: Path, data: Path) -> dict:
    (root / "corpus.yaml").write_text(YAML)
    prepare(str(root / "corpus.yaml"), "mini", str(root), str(data), 2)
    return json.loads((data / "corpus.json").read_text())


def row(name: str, **more) -> dict:
    return {"audio": name, "text": "ja", **more}


def test_a_copy_under_another_name_and_format_is_refused(tmp_path):
    sound(tmp_path / "a.wav", 1), sound(tmp_path / "b.wav", 2), sound(tmp_path / "copy.flac", 1)
    write_rows(tmp_path, train=[row("a.wav"), row("b.wav")], test=[row("copy.flac")])
    with pytest.raises(UserError, match=r"corpus.yaml: 1 cuts of test also stand in the .*copy.flac.*of a-.*a.wav\)"):
        prepare_own(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / "corpus.json").exists()


def test_equal_names_and_lengths_with_other_audio_are_no_copies(tmp_path):
    for seed, part in enumerate(("train", "dev", "test")):
        sound(tmp_path / part / "0001.wav", seed)
        write_rows(tmp_path, **{part: [row(f"{part}/0001.wav")]})
    assert prepare_own(tmp_path, tmp_path / "data")["sets"]["test"]["cuts"] == 1


def test_segments_of_one_recording_are_compared_by_time(tmp_path):
    sound(tmp_path / "long.wav", 1, 4.0)
    train = [row("long.wav", start=0.0, end=1.5), row("long.wav", start=1.5, end=2.5)]
    write_rows(tmp_path, train=train, test=[row("long.wav", start=2.5, end=4.0)])
    assert prepare_own(tmp_path, tmp_path / "data")["sets"]["train"]["cuts"] == 2
    write_rows(tmp_path, test=[row("long.wav", start=2.4, end=4.0)])
    with pytest.raises(UserError, match="1 cuts of test also stand in the training set"):
        prepare_own(tmp_path, tmp_path / "data2")


def test_too_many_hours_are_compared_by_id_only(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(leaks, "MOST_HOURS", 1e-4)
    sound(tmp_path / "a.wav", 1), sound(tmp_path / "copy.wav", 1)
    write_rows(tmp_path, train=[row("a.wav")], test=[row("copy.wav")])
    prepare_own(tmp_path, tmp_path / "data")
    assert "only the audio of cuts with equal ids is compared" in capsys.readouterr().out
    write_rows(tmp_path, train=[row("a.wav", id="x")], test=[row("copy.wav", id="x")])
    with pytest.raises(UserError, match="1 cuts of test also stand in the training set, the first is x"):
        prepare_own(tmp_path, tmp_path / "data2")


def test_published_layouts_compare_cuts_with_equal_ids(tmp_path):
    root = librispeech(tmp_path / "c", parts=("train-clean-100", "dev-clean", "test-clean"))  # all of one tone
    run("librispeech", root, tmp_path / "data")
    (speaker,) = {path.parts[-3] for path in (root / "test-clean").glob("*1/7/*.flac")}
    home = root / "test-clean" / speaker / "7"
    home.rename(home.with_name("8"))
    moved = root / "train-clean-100" / speaker / "7"
    moved.parent.mkdir()
    home.with_name("8").rename(moved)
    (root / "test-clean" / speaker).rmdir()
    (root / "test-clean" / speaker).symlink_to(moved.parent)
    with pytest.raises(UserError, match="librispeech/corpus.yaml: 2 cuts of test-clean also stand in the training set"):
        run("librispeech", root, tmp_path / "data2")
