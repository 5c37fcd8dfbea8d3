"""The reference of each file, in all formats in which references come."""

from __future__ import annotations

import json

import pytest

from arkasr.errors import UserError
from arkasr.transcription.comparison.references import read_references
from arkasr.transcription.sources import audio_file

NAMES = ["calls/a-1.wav", "calls/b.2.flac", "c.mp3"]
SOURCES = [audio_file(name) for name in NAMES]


def texts(values, sources=SOURCES):
    found = read_references([str(value) for value in values], sources)
    return [each and each.text for each in found.utterances], list(found.unused)


def written(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


CUT = {"id": "a-1", "supervisions": [{"text": "one", "speaker": "x"}]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("text", "a-1 one\nb.2 two\nc three\n", ["one", "two", "three"]),
        ("trans.txt", "a-1 one\nb.2 two\nc three\n", ["one", "two", "three"]),
        ("plain.txt", "one\n\nthree\n", ["one", "", "three"]),
        ("ref.trn", "two (b.2)\none (calls/a-1)\n", ["one", "two", None]),
        ("ref.jsonl", json.dumps({"audio": "elsewhere/c.mp3", "text": "three"}), [None, None, "three"]),
        ("cuts.jsonl", json.dumps(CUT), ["one", None, None]),
        ("ref.stm", "c A s 2 3 three\nc A s 0 1 and\nb.2 1 s 0 1 two\n", [None, "two", "and three"]),
        ("ref.ctm", "c A 1 1 three\nc A 0 1 and\n", [None, None, "and three"]),
    ],
)
def test_references_are_read_in_every_format(name, content, expected, tmp_path):
    assert texts([written(tmp_path, name, content)]) == (expected, [])


def test_a_text_file_per_audio_file_is_read(tmp_path):
    one = written(tmp_path, "calls/a-1.txt", "one\n two\n")
    written(tmp_path, "b.2.txt", "two")
    written(tmp_path, "other.txt", b"x".decode())
    assert texts([one, tmp_path / "b.2.txt"]) == (["one two", "two", None], [])
    assert texts([tmp_path]) == (["one two", "two", None], [str(tmp_path / "other.txt")])


def test_the_whole_text_file_is_the_reference_of_a_single_audio_file(tmp_path):
    path = written(tmp_path, "any.txt", "one\ntwo three\n")
    assert texts([path], SOURCES[:1]) == (["one two three"], [])
    assert texts([written(tmp_path, "a-1.txt", "a-1 one\nc three\n")], SOURCES[:1]) == (["one"], ["c"])


def test_without_references_no_file_has_one():
    assert texts([]) == ([None, None, None], [])


def test_ids_with_dots_are_not_cut():
    """`part.2` is no suffix of audio, so that a reference of `part.1` is not taken for it."""
    sources = [audio_file("part.1"), audio_file("part.2")]
    with pytest.raises(UserError, match="no-such"):
        read_references(["no-such.trn"], sources)


def test_a_reference_of_another_part_is_not_used(tmp_path):
    path = written(tmp_path, "ref.trn", "one (part.1)\n")
    assert texts([path], [audio_file("part.1"), audio_file("part.2")]) == (["one", None], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plain.txt", "one\ntwo\n", "holds 2 texts for 3 audio files"),
        ("ref.trn", "one (x)\n", r"has no reference of an audio file such as calls/a-1.wav \(known: x\)"),
        ("ref.trn", "one (x/c)\ntwo (y/c)\n", "x/c and y/c both belong to c.mp3"),
    ],
)
def test_references_that_do_not_belong_to_the_files_are_refused(name, content, message, tmp_path):
    with pytest.raises(UserError, match=message):
        texts([written(tmp_path, name, content)])


def test_a_reference_of_two_files_is_refused(tmp_path):
    path = written(tmp_path, "ref.trn", "one (c)\n")
    with pytest.raises(UserError, match=r"c belongs to both x/c.wav and y/c.wav"):
        texts([path], [audio_file("x/c.wav"), audio_file("y/c.wav")])
    assert texts([path], [audio_file("x/c.wav"), audio_file("x/c.wav")]) == (["one", "one"], [])


def test_files_that_are_no_text_and_empty_folders_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no .txt file"):
        texts([empty])
    with pytest.raises(UserError, match=r"x.trn: is not a .txt file"):
        texts(["x.trn", "y.trn"])
