"""Manifest files: every way in which one can be broken gives one sentence, in memory and line by line."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import gzip
import json
import os

import pytest
from lhotse import CutSet
from shard_files import settings, shards  # noqa: F401

from arkasr.data.lines import entries
from arkasr.data.manifests import read_cuts
from arkasr.data.training_cuts import InMemory, OnDisk, open_manifest
from arkasr.errors import UserError


@pytest.fixture
def lines(shards):
    """Return the ten lines of one shard."""
    return gzip.decompress((shards / "train.000.jsonl.gz").read_bytes()).splitlines(keepends=True)


def readers(path):
    """Return every way to read a manifest, as functions without arguments."""
    config = settings(path)

    def on_disk() -> list:
        manifest = OnDisk(config)
        return [clip.cut() for shard in range(manifest.num_shards) for _, clip in manifest.read(shard, 0)]

    return lambda: list(InMemory(config).cuts), on_disk, lambda: list(read_cuts(str(path)))


def assert_error(path, *parts: str) -> None:
    for read in readers(path):
        with pytest.raises(UserError) as error:
            read()
        for part in (path.name, *parts):
            assert part in str(error.value)
        assert "\n" not in str(error.value)


def packed(content: bytes) -> bytes:
    return gzip.compress(content)


def test_content_decides_about_compression(lines, tmp_path):
    content = b"".join(lines)
    for name, data in (
        ("plain.jsonl.gz", content),
        ("packed.jsonl", packed(content)),
        ("bom.jsonl", b"\xef\xbb\xbf" + content),
    ):
        (tmp_path / name).write_bytes(data)
        for read in readers(tmp_path / name):
            assert [cut.id for cut in read()] == [f"clip-0-{i}" for i in range(10)]


def test_blank_lines_are_no_cuts(lines, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines[0] + b"\n  \n" + lines[1] + b"\n")
    assert [(number, item["id"]) for number, item in entries(tmp_path / "a.jsonl")] == [
        (0, "clip-0-0"),
        (3, "clip-0-1"),
    ]
    assert [number for number, _ in entries(tmp_path / "a.jsonl", 1)] == [3]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_damaged_lines_are_named(lines, tmp_path, name):
    path, wrap = tmp_path / name, packed if name.endswith("gz") else bytes
    broken = {
        b'{"id": "half\n': "line 2 is not a cut: not JSON",
        b"[]\n": "line 2 is not a cut: list instead of an object",
        b"3\n": "line 2 is not a cut: int instead of an object",
        b'"a"\n': "line 2 is not a cut: str instead of an object",
        lines[1].replace(b"one two", b"caf\xe9"): "line 2 is not UTF-8 text; convert",
        lines[1].replace(
            b'"id": "clip-0-1", "start"', b'"id": 7, "start"'
        ): "line 2 is not a cut: its id must be text, got 7",
        lines[1].replace(b"MonoCut", b"Song"): "line 2 is not a cut: unknown type 'Song'",
    }
    for duration in (b"0", b"-1.5", b'"2"', b"null", b"NaN", b"Infinity", b"true"):
        item = lines[1].replace(
            b'"duration": 4.0, "channel": 0, "supervisions"',
            b'"duration": ' + duration + b', "channel": 0, "supervisions"',
        )
        broken[item] = "line 2 is not a cut: its duration must be a number of seconds above 0"
    for line, message in broken.items():
        assert line != lines[1]
        path.write_bytes(wrap(lines[0] + line + lines[2]))
        assert_error(path, message)


def test_other_manifests_are_recognised(shards, tmp_path):
    cuts = list(read_cuts(str(shards)))
    recordings, supervisions = [cut.recording for cut in cuts], [cut.supervisions[0] for cut in cuts]
    rows = [{"audio_filepath": "a.wav", "duration": 2.0, "text": "one"}]
    others = {
        "it is a recording": [each.to_dict() for each in recordings],
        "it is a supervision": [each.to_dict() for each in supervisions],
        "it is a row of another toolkit's manifest": rows,
        "it has no type": [{"utterance": 1}],
    }
    for number, (message, items) in enumerate(others.items()):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        assert_error(path, f"line 1 is not a cut: {message}", "docs/large_corpora.md")


def test_damaged_files_are_named(lines, tmp_path):
    content = b"".join(lines)
    whole = packed(os.urandom(3000).hex().encode().join(lines[:1] * 2) + content)
    cases = {
        "zero.jsonl.gz": (b"", "is empty (0 bytes)"),
        "zero.jsonl": (b"", "is empty (0 bytes)"),
        "none.jsonl.gz": (packed(b""), "holds no cuts"),
        "blank.jsonl": (b"\n\n", "holds no cuts"),
        "short.jsonl.gz": (packed(content)[:-20], "is truncated after line"),
        "header.jsonl.gz": (packed(content)[:5], "is truncated after line 0"),
        "flipped.jsonl.gz": (packed(content)[:-6] + b"\0\0" + packed(content)[-4:], "damaged after line 10"),
        "inside.jsonl.gz": (whole[:40] + bytes(40) + whole[80:], "damaged after line 0"),
        "junk.jsonl.gz": (os.urandom(8) + b"\xff\xfe", "line 1 is not"),
        "wide.jsonl": (content.decode().encode("utf-16"), "line 1 is not UTF-8"),
        "short.jsonl": (content[:-40], "line 10 is not a cut: not JSON"),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert_error(tmp_path / name, message)


def test_files_of_other_formats_are_refused_or_read_whole(shards, tmp_path):
    cuts = CutSet.from_cuts(list(read_cuts(str(shards))))
    for name in ("cuts.json", "cuts.json.gz", "cuts.yaml"):
        cuts.to_file(tmp_path / name)
        assert list(open_manifest(settings(tmp_path / name, lazy="auto")).cuts) == list(cuts)
        with pytest.raises(UserError, match=r"only .jsonl and .jsonl.gz can be read line by line"):
            open_manifest(settings(tmp_path / name))
    for name in ("cuts.csv", "cuts.txt", "cuts", "cuts.tar"):
        (tmp_path / name).write_text("id,path\n")
        with pytest.raises(UserError, match=rf"{name}: not the name of a manifest; allowed: .jsonl, .*; stage 1 makes"):
            open_manifest(settings(tmp_path / name, lazy="auto"))
    broken = {
        "lines.json": ((tmp_path / "cuts.json").read_bytes()[3:], "must be named .jsonl"),
        "object.json": (b'{"a": 1}', "must hold a list of cuts, got dict"),
        "cut.json": (b'[{"id": "a"}]', "entry 1 is not a cut"),
        "torn.json.gz": (packed((tmp_path / "cuts.json").read_bytes())[:-9], "is truncated"),
        "bad.yaml": (b"[a: b: c", "must be named .jsonl"),
        "latin.yaml": (b"- caf\xe9", "not UTF-8"),
    }
    for name, (data, message) in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            open_manifest(settings(tmp_path / name, lazy="auto"))
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            read_cuts(str(tmp_path / name))


def test_links_to_nothing_and_hidden_files(shards, tmp_path):
    (shards / "._train.000.jsonl.gz").write_bytes(b"\0\5\26\7")  # what macOS leaves on other file systems
    assert len(list(read_cuts(str(shards)))) == 60
    (shards / "train.006.jsonl.gz").symlink_to(tmp_path / "gone.jsonl.gz")
    assert_error(shards, "train.006.jsonl.gz: a link to", "gone.jsonl.gz, which does not exist")


def test_line_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("arkasr.data.lines.MOST_BYTES", 1000)
    path = tmp_path / "cuts.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"id": "' + b"a" * 100_000 + b'"}\n')
    with pytest.raises(UserError, match="cuts.jsonl.gz: line 1 has more than 1000 bytes, which no cut needs; write or"):
        list(entries(path))


@pytest.mark.parametrize("text", ["- 2026-13-45", "- !!bool maybe", "- !!int x", "- !!timestamp x"])
def test_odd_values_of_a_yaml_manifest_are_one_sentence(tmp_path, text):
    path = tmp_path / "cuts.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^{path}: ") as error:
        list(entries(path))
    assert "\n" not in str(error.value)


def test_whole_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("arkasr.data.lines.MOST_WHOLE_BYTES", 1000)
    path = tmp_path / "cuts.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 5000 + b"]"))
    with pytest.raises(UserError, match=r"more than 1000 bytes.*write it as \.jsonl\.gz"):
        list(entries(path))
