"""`arkasr transcribe` with several models, references and hotwords."""

from __future__ import annotations

import json

import pytest
import soundfile
from tiny import waveform

from arkasr.cli import main
from arkasr.errors import UserError
from arkasr.scoring.transcript_file import read_transcripts
from arkasr.transcription.recognizer import Recognizer


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    for number in range(3):
        soundfile.write(folder / f"clip-{number}.wav", waveform(9000 + 4000 * number, number).numpy(), 16000)
    (folder / "ref.trn").write_text("the sea (clip-0)\na ship (clip-2)\nmore (other)\n")
    return folder


def systems(trained):
    return [word for run in ("base", "teacher") for word in ("--model", str(trained / run / "final"))]


@pytest.mark.slow
def test_models_are_compared_with_references(audio, trained, tmp_path, capsys):
    files = [str(path) for path in sorted(audio.glob("*.wav"))]
    words = ["transcribe", *files, *systems(trained), "--reference", str(audio / "ref.trn"), "--device", "cpu"]
    assert main([*words, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["models"]) == ["base", "teacher"] and found["models"]["base"]["score"]["utterances"] == 2
    assert found["without_reference"] == [files[1]] and found["unused_references"] == ["other"]
    for name in ("base", "teacher"):
        assert main(["transcribe", *files, "--model", str(trained / name / "final"), "--format", "jsonl"]) == 0
        printed = capsys.readouterr().out
        texts = [json.loads(line)["text"] for line in printed.splitlines()]
        (tmp_path / "hyp.jsonl").write_text(printed)
        read = read_transcripts(str(tmp_path / "hyp.jsonl"), False)  # `arkasr score --hyp`
        assert {name: each.text for name, each in read.utterances.items()} == dict(zip(files, texts))
        assert [entry["texts"][name] for entry in found["files"]] == texts
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "teacher against base:" in out and "1 of 3 files have no reference" in out and "\x1b" not in out


@pytest.mark.slow
def test_a_broken_file_is_named_and_the_status_is_1(audio, trained, tmp_path, capsys):
    broken = tmp_path / "broken.wav"
    broken.write_text("no audio")
    with pytest.raises(SystemExit) as stop:
        main(["transcribe", str(audio / "clip-0.wav"), str(broken), *systems(trained)])
    out = capsys.readouterr().out
    assert stop.value.code == 1 and "1 of 2 files failed and are not compared:" in out
    assert out.count("broken.wav") == 1  # both models have the same reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "x"], "--output x: a comparison goes to standard output"),
        (["--format", "srt"], "--format srt: a comparison has the formats txt and json"),
        (["--model", "a"], "--model a: is named twice"),
        (["--reference", "missing.trn"], "missing.trn: cannot be read"),
        (["--hotwords", "@missing"], "missing: cannot be read"),
    ],
)
def test_options_that_do_not_fit_are_refused(words, message, capsys):
    assert main(["transcribe", "x.wav", "--model", "a", "--model", "b", *words]) == 2
    assert message in capsys.readouterr().err


def test_standard_input_cannot_be_read_by_two_models(capsys):
    assert main(["transcribe", "-", "--model", "a", "--model", "b"]) == 2
    assert "standard input can be read once" in capsys.readouterr().err


@pytest.mark.slow
def test_hotwords_reach_the_model(audio, trained, tmp_path, capsys):
    file, model = str(audio / "clip-2.wav"), str(trained / "base" / "final")
    (tmp_path / "words.txt").write_text("zebra\n\nTHE SEA\n")
    texts = []
    for words in ([], ["--hotwords", f"@{tmp_path / 'words.txt'}", "--hotword_weight", "30"]):
        assert main(["transcribe", file, "--model", model, "--device", "cpu", *words]) == 0
        texts.append(capsys.readouterr().out.lower())
    assert ("zebra" in texts[1] or "the sea" in texts[1]) and texts[0] != texts[1]
    assert main(["transcribe", file, "--model", model, "--hotwords", "<|im_end|>"]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.slow
def test_wrong_hotwords_are_refused_before_audio_is_read(trained):
    model = Recognizer.load(str(trained / "base" / "final"), device="cpu")
    with pytest.raises(UserError, match="--hotword_weight -1"):
        model.transcribe([waveform(8000)], ["English"], ["sea"], -1.0)
    plugin = Recognizer("whisper:x", teacher=object())
    with pytest.raises(UserError, match="teacher plugin whisper:x cannot prefer hotwords"):
        plugin.check_hotwords(["sea"])
    plugin.check_hotwords([])
