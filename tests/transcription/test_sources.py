from __future__ import annotations

import io
import os
import sys

import pytest
import torch
from sounds import heard, write

from arkasr.errors import UserError
from arkasr.transcription.sources import find_sources


def names(paths):
    return [source.name for source in find_sources(paths)]


def test_folders_are_searched_with_their_subfolders_in_order(tmp_path, capsys):
    for name in ("b/2.WAV", "b/1.flac", "a.m4a", "notes.txt", ".hidden.wav", ".git/x.wav", "c/video.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    sources = find_sources([tmp_path])
    assert [source.place for source in sources] == ["a", "b/1", "b/2", "c/video"]
    assert sources[2].name == str(tmp_path / "b/2.WAV")
    printed = capsys.readouterr().out
    assert "left out 1 file without a suffix of audio" in printed and "hidden" in printed


def test_links_in_a_circle_end(tmp_path):
    write(tmp_path / "a" / "x.wav", "one")
    os.symlink(tmp_path, tmp_path / "a" / "back")
    assert names([tmp_path]) == [str(tmp_path / "a" / "x.wav")]


def test_patterns_match_also_across_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/1.wav", "x/y/2.wav", "x/3.flac"):
        write(tmp_path / name, "one")
    assert names(["x/**/*.wav"]) == ["x/1.wav", "x/y/2.wav"]
    (source,) = find_sources(["z*.wav"])
    with pytest.raises(UserError, match="no file matches this pattern"):
        source.open()


def test_an_existing_name_with_signs_of_patterns_is_that_file(tmp_path):
    path = write(tmp_path / "take [1].wav", "one")
    assert names([path]) == [path]


def test_what_cannot_be_read_is_reported_in_its_place(tmp_path):
    (tmp_path / "empty").mkdir()
    sources = find_sources([tmp_path / "absent.wav", tmp_path / "empty"])
    for source, reason in zip(sources, ("no such file", "holds no audio files")):
        with pytest.raises(UserError, match=reason):
            source.open()
    with pytest.raises(UserError, match="nothing to transcribe"):
        find_sources([])


def test_standard_input_is_read_and_has_no_stamp(tmp_path, monkeypatch):
    data = open(write(tmp_path / "a.flac", "one", "two"), "rb").read()  # noqa: SIM115

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(data)))
    (source,) = find_sources(["-"])
    assert source.stamp == "" and heard(torch.cat(list(source.open()))) == "one two"


def test_the_stamp_changes_with_the_file(tmp_path):
    path = write(tmp_path / "a.wav", "one")
    before = find_sources([path])[0].stamp
    assert before == find_sources([path])[0].stamp != ""
    write(tmp_path / "a.wav", "one", "two")
    assert find_sources([path])[0].stamp != before
