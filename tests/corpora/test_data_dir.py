"""The data directory: stage 1 writes only into its own, durably, one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from corpora_on_disk import librispeech, run
from synthetic_corpus import contents

from arkasr.corpora.data_dir import LINK, OWNER, transcripts_digest
from arkasr.errors import UserError
from arkasr.utils.files import LOCK


@pytest.mark.parametrize("name", ["train.jsonl.gz", "manifests/mine.txt", "notes.txt", ".hidden"])
def test_prepare_refuses_a_folder_of_other_files_and_writes_nothing(tmp_path, name):
    root = librispeech(tmp_path / "c")
    place = tmp_path / "data" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"--datadir .*data: holds files that stage 1 did not write \(.*\); use"):
        run("librispeech", root, tmp_path / "data")
    assert contents(tmp_path / "data") == {name: b"mine"}


def test_prepare_refuses_the_corpus_or_a_file_as_data_directory(tmp_path):
    root = librispeech(tmp_path / "c")
    with pytest.raises(UserError, match="did not write"):
        run("librispeech", root, root)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--datadir .*file: Not a directory; name a folder"):
        run("librispeech", root, tmp_path / "file")


def test_prepare_accepts_an_empty_folder_and_one_with_a_lock(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / LOCK).touch()
    assert run("librispeech", librispeech(tmp_path / "c"), tmp_path / "data")["sets"]["train"]["cuts"] == 4


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", "\x00", '{"name": "x", "scale": "mini"}', '{"name": 1}', "\udcff"]
)
def test_prepare_answers_a_damaged_corpus_json(tmp_path, capsys, content):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    before = run("librispeech", root, data)
    (data / "corpus.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    capsys.readouterr()
    assert run("librispeech", root, data) == before  # stage 1 wrote the folder, so it may write it again
    assert "corpus.json: " in capsys.readouterr().out
    (data / "corpus.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    (data / OWNER).unlink()
    with pytest.raises(UserError, match="corpus.json: .*use another --datadir, or delete the folder") as caught:
        run("librispeech", root, data)
    assert "None at scale None" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"sets": {"train": 1}}, {"parts": {"train": "x"}}, {"parts": {"train": [1]}}, {"parts": {"train": ["\ud800"]}},
     {"inputs": None}, {"transcripts": 5}, {"audio_root": []}],
)  # fmt: skip
def test_prepare_answers_a_corpus_json_with_other_values(tmp_path, capsys, change):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    before = run("librispeech", root, data)
    (data / "corpus.json").write_text(json.dumps(before | change))
    assert run("librispeech", root, data) == before
    assert f"key {next(iter(change))!r} is missing or wrong" in capsys.readouterr().out


def test_a_folder_of_the_former_version_is_prepared_again(tmp_path):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    facts = run("librispeech", root, data)
    (data / OWNER).unlink()
    for key in ("corpus", "audio_root", "transcripts", "channels", "text_case", "dropped_sha256"):
        del facts[key]
    facts["name"], facts["inputs"]["version"] = "librispeech", 1
    (data / "corpus.json").write_text(json.dumps(facts))
    assert run("librispeech", root, data)["inputs"]["version"] == 3 and (data / OWNER).is_file()


@pytest.mark.parametrize("name", ["train.jsonl.gz", "dev.jsonl.gz", "dropped.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "one bit"])
def test_prepare_writes_damaged_files_again(tmp_path, capsys, name, damage):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    next((root / "dev-clean-2").rglob("*.flac")).write_bytes(b"")  # so that dropped.jsonl is not empty
    run("librispeech", root, data)
    path = data / name
    good = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut short": good[:-4], "one bit": bytes([good[0] ^ 1]) + good[1:]}[damage])
    capsys.readouterr()
    run("librispeech", root, data)
    assert f"({name} is missing or changed)" in capsys.readouterr().out and path.read_bytes() == good


def test_equal_corpora_give_equal_files(tmp_path):
    root = librispeech(tmp_path / "c")
    data = tmp_path / "data"
    run("librispeech", root, data)
    before = contents(data)
    (data / "corpus.json").unlink()
    run("librispeech", root, data)
    assert contents(data) == before


HOLD = """
import sys, time
from pathlib import Path
from arkasr.utils.files import locked
with locked(Path(sys.argv[1]), "arkasr prepare"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_second_prepare_of_a_folder_gets_one_sentence(tmp_path):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(data)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=r"data: arkasr prepare, process \d+ on .* is using this folder; wait"):
            run("librispeech", root, data)
        holder.kill()
    assert run("librispeech", root, data)["sets"]["train"]["cuts"] == 4


def test_cuts_lead_through_the_link_or_to_the_corpus_where_there_are_no_links(tmp_path, monkeypatch, capsys):
    root, data = librispeech(tmp_path / "c"), tmp_path / "data"
    assert run("librispeech", root, data)["audio_root"] == str(data / LINK) and (data / LINK).resolve() == root

    def no_links(*arguments, **options):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", no_links)
    assert run("librispeech", root, tmp_path / "data2")["audio_root"] == str(root)
    assert "corpus: cannot be linked (Operation not permitted)" in capsys.readouterr().out
    run("librispeech", root, tmp_path / "data2")
    assert "already prepared" in capsys.readouterr().out


def test_transcripts_digest_covers_names_and_contents(tmp_path):
    digests = set()
    for name, text in (("a/1.txt", "x"), ("a/2.txt", "x"), ("a/1.txt", "y")):
        path = tmp_path / str(len(digests)) / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        digests.add(transcripts_digest(path.parent.parent, [path]))
    assert len(digests) == 3
