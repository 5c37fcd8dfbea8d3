"""A corpus that was moved: the prepared cuts lead to its new place, and their files do not change."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from corpora_on_disk import MAKERS, cuts, librispeech, run

from arkasr.corpora import cuts as cuts_module
from arkasr.corpora import prepare as prepare_module
from arkasr.errors import UserError


def manifests(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.glob("*.gz")}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_prepare_leads_the_data_to_a_moved_corpus_without_reading_its_audio(tmp_path, monkeypatch, capsys, name):
    root, data = MAKERS[name](tmp_path / "c"), tmp_path / "data"
    before = run(name, root, data)
    files = manifests(data)
    with pytest.raises(UserError, match="no such file or folder; run stage 0"):
        shutil.move(root, tmp_path / "new" / "place")
        run(name, root, data)
    assert not Path(cuts(data, "train")[0].recording.sources[0].source).exists()
    if name == "wenetspeech":  # a copy has other times
        os.utime(tmp_path / "new" / "place" / "WenetSpeech.json")
    monkeypatch.setattr(cuts_module, "check_audio", None)
    after = run(name, tmp_path / "new" / "place", data)
    assert "and is in" in capsys.readouterr().out
    assert manifests(data) == files and all(cut.load_audio().size for cut in cuts(data, "train"))
    assert after["corpus_dir"] == str(tmp_path / "new" / "place") and after["name"] == before["name"] == "c"
    run(name, tmp_path / "new" / "place", data)
    assert "already prepared" in capsys.readouterr().out


def test_prepare_refuses_another_corpus_or_an_incomplete_copy_at_the_new_place(tmp_path):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    run("librispeech", root, data)
    root = root.rename(tmp_path / "moved")
    transcript = next((root / "train-clean-5").rglob("*.txt"))
    text = transcript.read_text()
    transcript.write_text(text.replace("RED", "GREEN"))
    with pytest.raises(UserError, match=r"holds librispeech at scale mini from .*/c, not .*/moved; use another"):
        run("librispeech", root, data)
    transcript.write_text(text)
    next((root / "train-clean-5").rglob("*.flac")).unlink()
    with pytest.raises(UserError, match="missing or another length than when .*complete the moved corpus"):
        for path in sorted((root / "train-clean-5").rglob("*.flac")):
            path.unlink()
        run("librispeech", root, data)


def test_prepare_refuses_a_copy_while_the_former_corpus_exists(tmp_path):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    run("librispeech", root, data)
    shutil.copytree(root, tmp_path / "copy")
    with pytest.raises(UserError, match="use another --datadir and --expdir, or move the former copy"):
        run("librispeech", tmp_path / "copy", data)


def test_prepare_makes_the_link_again_or_prepares_a_moved_data_directory(tmp_path, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    run("librispeech", root, data)
    (data / "corpus").unlink()
    run("librispeech", root, data)
    assert "the cuts now lead there" in capsys.readouterr().out and cuts(data, "train")[0].load_audio().size
    data = data.rename(tmp_path / "data2")
    run("librispeech", root, data)
    assert "the data directory or the corpus was moved" in capsys.readouterr().out
    assert cuts(data, "train")[0].load_audio().size


def test_prepare_notices_new_and_removed_transcripts(tmp_path, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    run("librispeech", root, data)
    shutil.rmtree(sorted((root / "train-clean-5").iterdir())[0])
    facts = run("librispeech", root, data)
    assert "files of the corpus changed" in capsys.readouterr().out and facts["sets"]["train"]["cuts"] == 2
    librispeech(tmp_path / "more", parts=("train-clean-360",))
    shutil.move(tmp_path / "more" / "train-clean-360" / "991", root / "train-clean-5" / "991")
    assert run("librispeech", root, data)["sets"]["train"]["cuts"] == 4


def test_dropped_files_lead_through_the_link_too(tmp_path, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    broken = next((root / "train-clean-5").rglob("*.flac"))
    good = broken.read_bytes()
    broken.write_bytes(b"")
    run("librispeech", root, data)
    row = json.loads((data / "dropped.jsonl").read_text())
    assert row["path"] == str(data / "corpus" / broken.relative_to(root))
    root = root.rename(tmp_path / "moved")
    run("librispeech", root, data)
    (root / broken.relative_to(tmp_path / "c")).write_bytes(good)
    capsys.readouterr()
    assert run("librispeech", root, data)["sets"]["train"]["cuts"] == 4
    assert "files of the corpus changed" in capsys.readouterr().out


def test_prepare_of_unchanged_data_writes_nothing(tmp_path, monkeypatch, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    run("librispeech", root, data)

    def read_only(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(prepare_module, "locked", read_only)
    run("librispeech", root, data)
    assert "already prepared" in capsys.readouterr().out
