from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import soundfile
import torch
from corpus_fixture import write_cuts
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from sounds import heard, write

from arkasr.errors import UserError
from arkasr.transcription.sources import find_sources

WORDS = ["one", "two", "three", "four", "five"]


def manifest(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def text(source):
    return heard(torch.cat(list(source.open())))


def error_of(source):
    with pytest.raises(UserError) as raised:
        list(source.open())
    return str(raised.value)


def test_rows_of_the_published_repository(tmp_path):
    write(tmp_path / "audio" / "a.wav", *WORDS)
    rows = [
        {"audio": "audio/a.wav", "text": "", "task": "asr", "begin_time": -1, "end_time": -1, "speaker": "s"},
        {"audio": str(tmp_path / "audio/a.wav"), "begin_time": 1.0, "end_time": 3.0, "language": "zh"},
        {"audio": "audio/a.wav", "id": "clip/1", "begin_time": 3, "end_time": -1},
    ]
    sources = find_sources([manifest(tmp_path / "in.jsonl", *rows)])
    assert [text(source) for source in sources] == ["one two three four five", "two three", "four five"]
    assert [source.row for source in sources] == rows
    assert [source.language for source in sources] == ["", "Chinese", ""]
    assert [source.name for source in sources] == ["audio/a.wav", f"{tmp_path}/audio/a.wav:1-3", "clip/1"]
    assert [source.place for source in sources] == ["a", "a-1-3", "clip_1"]
    assert len({source.stamp for source in sources}) == 3


def test_paths_begin_at_the_manifest_or_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "here.wav", "one")
    write(tmp_path / "lists" / "beside.wav", "two")
    path = tmp_path / "lists" / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"audio": "here.wav"}\n{"audio_filepath": "beside.wav"}\n'))
    assert [text(source) for source in find_sources(["lists/in.jsonl.gz"])] == ["one", "two"]


def test_bad_rows_are_reported_in_their_place(tmp_path):
    write(tmp_path / "a.wav", "one")
    rows = [
        {"audio": "a.wav"},
        "{broken\n",
        {"text": "no audio"},
        {"audio": "a.wav", "begin_time": 3, "end_time": 2},
        {"audio": "a.wav", "begin_time": "soon"},
        {"audio": "a.wav", "task": "tts"},
        {"audio": "http://host/a.wav"},
        {"audio": "absent.wav"},
        {"audio": "a.wav"},
    ]
    sources = find_sources([manifest(tmp_path / "in.jsonl", *rows)])
    assert len(sources) == 9 and text(sources[0]) == text(sources[8]) == "one"
    reasons = ["not JSON", "names no audio", "end", "not a finite number", "task is not asr", "address", "no such file"]
    for source, reason in zip(sources[1:8], reasons):
        assert reason in error_of(source)
    assert "line 2" in error_of(sources[1]) and sources[5].row == rows[5]


def test_a_damaged_manifest_is_one_failure(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"audio": "a.wav"}\n' * 1000)[:40])
    (tmp_path / "b.jsonl").write_bytes(b'["audio"]')
    for name in ("a.jsonl.gz", "b.jsonl"):
        assert name in error_of(find_sources([tmp_path / name])[-1])


def cut_of(path, name, start=0.0, duration=None, language=None, channel=0):
    recording = Recording.from_file(path, recording_id=path.stem)
    duration = recording.duration - start if duration is None else duration
    supervision = SupervisionSegment(name, path.stem, 0.0, duration, channel=channel, text="", language=language)
    return MonoCut(name, start, duration, channel, supervisions=[supervision], recording=recording)


def test_lhotse_cuts_are_read_with_their_times_and_languages(tmp_path):
    write(tmp_path / "a.flac", *WORDS, rate=44100)
    cuts = [cut_of(tmp_path / "a.flac", "all"), cut_of(tmp_path / "a.flac", "part/2", 1.0, 2.0, "German")]
    sources = find_sources([write_cuts(tmp_path / "cuts.jsonl.gz", cuts)], "French")
    assert [source.name for source in sources] == ["all", "part/2"]
    assert [text(source) for source in sources] == [" ".join(WORDS), "two three"]
    assert [source.language for source in sources] == ["French", "German"]
    assert sources[1].place == "part_2" and len({source.stamp for source in sources}) == 2


def test_long_cuts_are_read_in_parts_without_seams(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 11025 * 130).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 11025, subtype="FLOAT")
    cut = cut_of(tmp_path / "a.wav", "long", 3.0)
    (source,) = find_sources([write_cuts(tmp_path / "cuts.jsonl.gz", [cut])])
    blocks = list(source.open())
    whole = torch.from_numpy(cut.resample(16000).load_audio()[0])
    assert len(blocks) == 3
    torch.testing.assert_close(torch.cat(blocks), whole, atol=1e-4, rtol=0)


def test_silent_and_unreadable_cuts(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    cuts = [cut_of(tmp_path / "a.wav", "silent"), cut_of(tmp_path / "a.wav", "gone")]
    cuts[1].recording.sources[0].source = str(tmp_path / "gone.wav")
    cuts.append(cut_of(tmp_path / "a.wav", "command"))
    cuts[2].recording.sources[0].type, cuts[2].recording.sources[0].source = "command", "touch evil"
    sources = find_sources([write_cuts(tmp_path / "cuts.jsonl.gz", cuts)])
    stream = sources[0].open()
    assert not torch.cat(list(stream)).any() and "silent" in stream.notes[0]
    assert "missing audio file" in error_of(sources[1]) and "no command of a manifest is run" in error_of(sources[2])
    assert not (tmp_path / "evil").exists()


def test_cuts_of_a_shar_folder(tmp_path):
    write(tmp_path / "a.wav", "six", "seven")
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts([cut_of(tmp_path / "a.wav", "x")]).to_shar(tmp_path / "shar", {"recording": "flac"})
    (source,) = find_sources([next((tmp_path / "shar").glob("cuts.*"))])
    assert text(source) == "six seven"
