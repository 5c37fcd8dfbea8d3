from __future__ import annotations

import io
import json
import os
import signal
import sys

import numpy as np
import pytest
import soundfile
from sounds import ToneRecognizer, write

from arkasr import cli
from arkasr.errors import UserError
from arkasr.transcription import transcribe as module
from arkasr.transcription.settings import Settings
from arkasr.transcription.transcribe import transcribe

FIXED = Settings(segmentation="fixed", batch_seconds=2.0)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    for name, words in {"a": ["one"], "b": ["two", "three"], "c": ["four", "five", "six"]}.items():
        write(folder / f"{name}.wav", *words)
    return folder


@pytest.fixture
def loaded(monkeypatch):
    """The recognisers that were loaded."""
    found = []

    def load(*_):
        found.append(ToneRecognizer())
        return found[-1]

    monkeypatch.setattr(module.Recognizer, "load", load)
    return found


def run(*paths, **options):
    return transcribe([str(path) for path in paths], "model", "", options.pop("settings", FIXED), **options)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_texts_go_to_standard_output_and_messages_to_standard_error(folder, loaded, capsys):
    assert run(folder) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{folder}/a.wav\tone\n{folder}/b.wav\ttwo three\n{folder}/c.wav\tfour five six\n"
    assert "3 of 3 files are transcribed, 6 s of audio, RTF 0." in printed.err and len(loaded) == 1


def test_a_bad_file_is_reported_at_once_and_in_the_summary(folder, loaded, capsys):
    (folder / "b.wav").write_text("text")
    assert run(folder) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{folder}/a.wav\tone\n{folder}/c.wav\tfour five six\n"
    lines = [line for line in printed.err.splitlines() if "b.wav" in line]
    assert len(lines) == 2 and all("cannot be read as audio" in line for line in lines)
    assert printed.err.index("failed: ") < printed.err.index("2 of 3 files are transcribed")


def test_notes_are_printed(tmp_path, loaded, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert run(tmp_path / "a.wav") == 0
    printed = capsys.readouterr()
    assert printed.out == "\n" and "a.wav: the audio is silent" in printed.err


def test_a_second_call_transcribes_only_what_is_missing(folder, loaded, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    (folder / "b.wav").rename(folder / "b")
    assert run(folder, output=str(out)) == 0 and [row["text"] for row in rows(out)] == ["one", "four five six"]
    (folder / "b").rename(folder / "b.wav")
    write(folder / "c.wav", "nine")
    assert run(folder, output=str(out)) == 0
    assert [row["text"] for row in rows(out)] == ["one", "two three", "nine"]
    assert [size for batch in loaded[1].batches for size in batch] == [32000, 16000]
    assert run(folder, output=str(out)) == 0 and len(loaded) == 2
    assert "3 of 3 files were transcribed by an earlier call and are kept" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"begun with another model or other options \(language"):
        run(folder, output=str(out), settings=Settings(language="German"))
    assert [row["text"] for row in rows(out)] == ["one", "two three", "nine"]


def test_a_folder_gets_files_in_any_format_from_one_decoding(folder, loaded, tmp_path):
    out = tmp_path / "out"
    for kind in ("srt", "txt"):
        assert run(folder, output=str(out), kind=kind) == 0
    assert {p.name for p in out.glob("[!.]*")} == {f"{n}.{kind}" for n in "abc" for kind in ("srt", "txt")}
    assert (out / "b.txt").read_text() == "two three\n" and len(loaded) == 1


def test_failed_files_are_tried_again(folder, loaded, tmp_path):
    good = (folder / "b.wav").read_bytes()
    (folder / "b.wav").write_text("text")
    assert run(folder, output=str(tmp_path / "out.jsonl")) == 1
    assert "error" in rows(tmp_path / "out.jsonl")[1]
    (folder / "b.wav").write_bytes(good)
    assert run(folder, output=str(tmp_path / "out.jsonl")) == 0
    assert [row["text"] for row in rows(tmp_path / "out.jsonl")] == ["one", "two three", "four five six"]


def test_the_published_jsonl_goes_in_and_out(folder, loaded, tmp_path):
    given = [
        {"audio": "c.wav", "text": "", "task": "asr", "begin_time": 1, "end_time": 3, "more": {"x": [1]}},
        {"audio": "absent.wav", "text": "r"},
        {"audio": "a.wav", "text": "参考"},
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    assert run(folder / "in.jsonl", output=str(tmp_path / "out.jsonl")) == 1
    first, second, third = rows(tmp_path / "out.jsonl")
    assert first == {**given[0], "pred_text": "five six", "pred_text_raw": "five six"}
    assert second == {**given[1], "error": "no such file; check the path"}
    assert third == {**given[2], "pred_text": "one", "pred_text_raw": "one"}


SIGNALS = [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]


@pytest.mark.parametrize(("number", "status", "name"), SIGNALS)
def test_a_signal_keeps_what_is_done(folder, loaded, tmp_path, monkeypatch, capsys, number, status, name):
    class Stopped(ToneRecognizer):
        def transcribe(self, waveforms, *others):
            if "four" in (texts := super().transcribe(waveforms, *others))[0]:
                os.kill(os.getpid(), number)
            return texts

    monkeypatch.setattr(module.Recognizer, "load", lambda *_: Stopped())
    before = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, before)  # a job in the background of a shell ignores Ctrl-C
    out = tmp_path / "out.json"
    with pytest.raises(SystemExit) as stop:
        run(folder, output=str(out))
    assert stop.value.code == status and signal.getsignal(number) == before
    message = capsys.readouterr().err
    assert f"stopped by {name}: 2 of 3 files are done; what is done is kept in {out}; run the same command" in message
    assert [row["text"] for row in json.loads(out.read_text())] == ["one", "two three"]
    monkeypatch.setattr(module.Recognizer, "load", lambda *_: ToneRecognizer())
    assert run(folder, output=str(out)) == 0
    assert [row["text"] for row in json.loads(out.read_text())] == ["one", "two three", "four five six"]


def test_wrong_options_are_refused_before_the_model_is_loaded(folder, loaded):
    for options, message in (
        ({"kind": "srt"}, "one file holds the subtitles of one recording"),
        ({"device": "tpu9"}, "--device tpu9: cannot be used"),
        ({"dtype": "int3"}, "--dtype int3: is not a data type of weights"),
    ):
        with pytest.raises(UserError, match=message):
            run(folder, **options)
    assert not loaded


def test_the_command_returns_1_if_a_file_failed(folder, loaded, capsys):
    words = ["transcribe", str(folder / "a.wav"), "--model", "m", "--segmentation", "fixed"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out == "one\n"
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, str(folder / "absent.wav")])
    assert stop.value.code == 1 and capsys.readouterr().out == f"{folder}/a.wav\tone\n"


def test_an_unknown_language_is_one_sentence(folder, loaded, capsys):
    assert cli.main(["transcribe", str(folder), "--model", "m", "--language", "Germn"]) == 2
    assert "did you mean German?" in capsys.readouterr().err and not loaded


def test_a_model_must_be_named(folder, capsys):
    assert cli.main(["transcribe", str(folder)]) == 2
    assert "--model and --teacher: exactly one must name a model" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_written_with_escapes(tmp_path, loaded):
    odd = os.fsencode(tmp_path / "in") + b"/caf\xe9.wav"
    os.makedirs(tmp_path / "in")
    with open(odd, "wb") as file:
        soundfile.write(file, np.zeros(16000), 16000, format="WAV")
    assert run(tmp_path / "in", output=str(tmp_path / "out.jsonl")) == 0
    assert "caf\\udce9.wav" in (tmp_path / "out.jsonl").read_text()
    assert run(tmp_path / "in", output=str(tmp_path / "texts")) == 0
    assert os.listdir(os.fsencode(tmp_path / "texts"))


def test_standard_input_is_transcribed_each_time(folder, loaded, tmp_path, monkeypatch):
    for _ in range(2):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "b.wav").read_bytes())))
        assert run("-", output=str(tmp_path / "out.txt")) == 0
        assert (tmp_path / "out.txt").read_text() == "two three\n"
    assert len(loaded) == 2
