"""Stage 0: corpora are synthesised once, downloaded at paper scale, and never written into other directories."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from corpora_on_disk import librispeech
from synthetic_corpus import EGS, contents, tiny

from arkasr.corpora import download as download_module
from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.download import download, is_synthetic
from arkasr.corpora.synthetic.writers import TEXT
from arkasr.errors import UserError
from arkasr.utils.files import LOCK


def test_download_keeps_a_complete_corpus_and_replaces_one_of_another_seed(tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    folder = tmp_path / "c"
    download(tiny(tmp_path, "aishell"), "mini", str(folder))
    (folder / "notes.txt").write_text("keep")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    download(tiny(tmp_path, "aishell"), "mini", str(folder))
    assert "already exists" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    download(tiny(tmp_path, "aishell", seed=2), "mini", str(folder))
    assert before != {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    assert (folder / "notes.txt").read_text() == "keep"


@pytest.mark.slow
def test_download_repeats_an_interrupted_synthesis(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    yaml, folder = tiny(tmp_path, "librispeech"), tmp_path / "c"

    real = download_module.WRITERS["librispeech"]

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setitem(download_module.WRITERS, "librispeech", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download(yaml, "mini", str(folder))
    assert not (folder / ".completed").exists() and not (folder / "train-clean-5").exists()
    monkeypatch.setitem(download_module.WRITERS, "librispeech", real)
    download(yaml, "mini", str(folder))
    assert (folder / ".completed").is_file() and not (folder / ".speaking").exists()
    assert len(list(folder.rglob("*.flac"))) == 12


def test_download_does_not_change_other_directories(tmp_path, capsys):
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds files, but not the"):
        download(tiny(tmp_path, "librispeech"), "mini", str(folder))
    assert contents(folder) == {"thesis.tex": b"x"}
    home = folder / "dev-clean" / "1" / "2"
    home.mkdir(parents=True)
    (home / "1-2.trans.txt").write_text("1-2-0000 HELLO\n")
    for scale in ("mini", "paper"):
        download(tiny(tmp_path, "librispeech"), scale, str(folder))
        assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_study_is_synthesised_in_parts_of_its_own(tmp_path):
    pytest.importorskip("espeakng_loader")
    text = (EGS / "librispeech" / "corpus.yaml").read_text()
    parts = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "test-clean", "test-other")
    sizes = ", ".join(f"{part}: 2" for part in parts)
    yaml, folder = tmp_path / "corpus.yaml", tmp_path / "c"
    yaml.write_text(re.sub(r"sizes:\n? *{train-clean-100.*}", f"sizes: {{{sizes}}}", text))
    download(str(yaml), "study", str(folder))
    text_file = folder / TEXT
    written = text_file.stat().st_mtime_ns
    download(str(yaml), "study", str(folder))
    assert text_file.stat().st_mtime_ns == written and len(text_file.read_text().splitlines()) == 8000
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(parts)
    assert json.loads((folder / ".completed").read_text())["kind"] == "study" and is_synthetic(folder)
    assert len(list(folder.rglob("*.flac"))) == 12
    yaml.write_text(text)
    assert "sizes: {train-clean-5: 3000" in text
    download(tiny(tmp_path, "librispeech"), "mini", str(folder))  # another kind replaces it
    assert not text_file.exists() and not (folder / "train-clean-100").exists() and (folder / "train-clean-5").is_dir()


def test_study_needs_a_layout_that_has_one(tmp_path):
    text = (EGS / "aishell" / "corpus.yaml").read_text().replace("  seed: ", "  kind: study\n  seed: ", 1)
    (tmp_path / "corpus.yaml").write_text(text)
    with pytest.raises(
        UserError, match="miniature.kind study: there is no such corpus in the layout aishell; use mini"
    ):
        download(str(tmp_path / "corpus.yaml"), "mini", str(tmp_path / "c"))


def test_missing_espeakng_loader_names_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'arkasr\[mini\]'"):
        download(tiny(tmp_path, "librispeech"), "mini", str(tmp_path / "c"))


def test_wenetspeech_at_paper_scale_explains_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="wenet.org.cn.*--corpus_dir"):
        download(str(EGS / "wenetspeech" / "corpus.yaml"), "paper", str(tmp_path / "c"))


@pytest.mark.parametrize("name, function", [("librispeech", "download_librispeech"), ("aishell", "download_aishell")])
def test_download_at_paper_scale_calls_lhotse(tmp_path, monkeypatch, name, function):
    import urllib.error

    import lhotse.recipes

    calls = []
    monkeypatch.setattr(lhotse.recipes, function, lambda *a, **k: calls.append((a, k)))
    yaml = EGS / name / "corpus.yaml"
    download(str(yaml), "paper", str(tmp_path / "c"))
    (arguments, options), facts = calls[0], read_corpus_yaml(yaml).scales.paper
    assert arguments == (tmp_path / "c",)
    assert options == ({} if name == "aishell" else {"dataset_parts": [*facts.train, *facts.dev, *facts.test]})

    def offline(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(lhotse.recipes, function, offline)
    with pytest.raises(UserError, match="no route to host.*run the same command again"):
        download(str(yaml), "paper", str(tmp_path / "c"))


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", "{}", '{"name": "of another program"}'])
def test_damaged_marker_is_named_and_nothing_is_reused(tmp_path, content):
    folder = librispeech(tmp_path / "c")
    (folder / ".completed").write_text(content)
    before = contents(folder)
    with pytest.raises(UserError, match=r"c/.completed: .*; if stage 0 wrote .*/c, delete the folder and run stage 0"):
        download(tiny(tmp_path, "librispeech"), "mini", str(folder))
    with pytest.raises(UserError, match="otherwise remove this file"):
        is_synthetic(folder)
    assert contents(folder) == before


@pytest.mark.slow
def test_download_writes_missing_files_of_a_marked_corpus_again(tmp_path):
    pytest.importorskip("espeakng_loader")
    yaml, folder = tiny(tmp_path, "aishell"), tmp_path / "c"
    download(yaml, "mini", str(folder))
    before = contents(folder)
    (folder / "data_aishell").rename(tmp_path / "gone")
    download(yaml, "mini", str(folder))
    assert {**contents(folder), LOCK: b""} == {**before, LOCK: b""}


HOLD = """
import sys, time
from pathlib import Path
from arkasr.utils.files import locked
with locked(Path(sys.argv[1]), "arkasr download"):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("scale", ["mini", "paper"])
def test_second_download_into_a_folder_gets_one_sentence(tmp_path, scale):
    folder = tmp_path / "c"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=r"c: arkasr download, process \d+ on .* is using this folder; wait"):
            download(tiny(tmp_path, "aishell"), scale, str(folder))
        holder.kill()
    assert os.listdir(folder) == [LOCK]


def test_download_into_a_file_is_refused(tmp_path):
    (tmp_path / "c").touch()
    for scale in ("mini", "paper"):
        with pytest.raises(UserError, match="--corpus_dir .*c: is a file, must be a folder"):
            download(tiny(tmp_path, "librispeech"), scale, str(tmp_path / "c"))


@pytest.mark.parametrize(
    "name, place, archive",
    [
        ("librispeech", "LibriSpeech/dev-clean", "dev-clean.tar.gz"),
        ("aishell", "aishell/data_aishell", "data_aishell.tgz"),
    ],
)
def test_download_keeps_folders_that_lhotse_did_not_unpack(tmp_path, monkeypatch, name, place, archive):
    import lhotse.recipes

    calls = []
    monkeypatch.setattr(lhotse.recipes, f"download_{name}", lambda *a, **k: calls.append(a))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "mine.flac").touch()
    yaml = str(EGS / name / "corpus.yaml")
    with pytest.raises(UserError, match=rf"{place}: stage 0 did not download this folder, and would replace it; name"):
        download(yaml, "paper", str(tmp_path))
    assert calls == []
    (tmp_path / archive).touch()  # Lhotse was interrupted while it unpacked this archive
    download(yaml, "paper", str(tmp_path))
    assert len(calls) == 1


def test_download_names_a_damaged_archive(tmp_path, monkeypatch):
    import tarfile

    import lhotse.recipes

    def damaged(*arguments, **options):
        raise tarfile.ReadError("unexpected end of data")

    monkeypatch.setattr(lhotse.recipes, "download_aishell", damaged)
    with pytest.raises(UserError, match=r"an archive is damaged \(unexpected end of data\); delete the newest archive"):
        download(str(EGS / "aishell" / "corpus.yaml"), "paper", str(tmp_path / "c"))
