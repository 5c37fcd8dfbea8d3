"""Damaged references and hypotheses give one sentence that names the file and the remedy."""

from __future__ import annotations

import gzip
import json

import pytest
from json_lines import write_lines

from arkasr.errors import UserError
from arkasr.evaluation.texts_io import read_hypotheses, read_references

ROW = {"id": "u1", "hypothesis": "a", "stopped": True}
SOURCE = {"type": "file", "channels": [0], "source": "absent.wav"}


def cut(identity, text="a"):
    part = {"id": identity, "recording_id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "text": text}
    recording = {"id": identity, "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    head = {"id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    return {**head, "recording": recording, "supervisions": [part]}


def write_manifest(path, *cuts):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(each) + "\n" for each in cuts)


def broken_manifest(path, damage):
    write_manifest(path, *(cut(f"u{i}") for i in range(300)))
    content = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(content[:60])
    elif damage == "flipped byte":
        path.write_bytes(content[:80] + bytes([content[80] ^ 0xFF]) + content[81:])
    elif damage == "not gzip":
        path.write_bytes(b'{"id": 1}')
    elif damage == "twice":
        write_manifest(path, cut("u1"), cut("u1"))
    elif damage == "no cut":
        write_manifest(path, {"id": "u1"})
    elif damage == "zero bytes":
        path.write_bytes(b"")
    else:
        write_manifest(path)


@pytest.mark.parametrize(
    "damage",
    ["cut short", "flipped byte", "not gzip", "twice", "no cut", "zero bytes", "no lines"],
)
def test_read_references_names_damaged_manifest(tmp_path, damage):
    broken_manifest(tmp_path / "test.jsonl.gz", damage)
    with pytest.raises(UserError, match=r"test\.jsonl\.gz"):
        read_references(tmp_path / "test.jsonl.gz")


def hypotheses(tmp_path, content):
    path = tmp_path / "exp" / "base" / "decode" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return read_hypotheses(tmp_path / "exp" / "base" / "decode" / "test.jsonl", {"u1": "A"}, tmp_path / "test.jsonl.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "u1", "hyp', "line 1: not valid JSON"),
        (b"\0" * 32, "line 1: not valid JSON"),
        (b'{"id": "u1", "hypothesis": "\xff", "stopped": true}\n', "line 1: not valid JSON in UTF-8"),
        (b"[" * 100_000, "line 1: not valid JSON"),
        (b"[]\n", "line 1: must be a mapping"),
        (json.dumps(ROW | {"id": ["u1"]}).encode(), "line 1: key 'id' must be text"),
        (json.dumps(ROW | {"hypothesis": 3}).encode(), "line 1: key 'hypothesis' must be text, got 3"),
        (json.dumps(ROW | {"hypothesis": None}).encode(), "line 1: key 'hypothesis' is missing"),
        (json.dumps(ROW | {"stopped": "yes"}).encode(), "line 1: key 'stopped' must be true or false"),
        (json.dumps(ROW | {"looping": 0}).encode(), "line 1: key 'looping' must be true or false"),
    ],
)
def test_read_hypotheses_names_line_of_damaged_file(tmp_path, content, message):
    with pytest.raises(UserError) as caught:
        hypotheses(tmp_path, content)
    assert f"test.jsonl, {message}" in str(caught.value)
    assert "--stage 4" in str(caught.value)


def test_read_hypotheses_says_if_decoding_did_not_finish(tmp_path):
    write_lines(tmp_path / "exp" / "base" / "decode" / "test.jsonl.part", [ROW])
    with pytest.raises(UserError, match=r"test\.jsonl: decoding did not finish, and its rows are in test\.jsonl\.part"):
        read_hypotheses(tmp_path / "exp" / "base" / "decode" / "test.jsonl", {"u1": "A"}, tmp_path / "test.jsonl.gz")
