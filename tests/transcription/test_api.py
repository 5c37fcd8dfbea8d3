from __future__ import annotations

import subprocess
import sys

import pytest
from sounds import ToneRecognizer, write
from tiny import student

import arkasr
from arkasr.transcription.api import SomeFailedError, make_settings
from arkasr.transcription.recognizer import Recognizer


def test_arkasr_transcribe_returns_one_transcription_per_file(tmp_path):
    paths = [write(tmp_path / f"{word}.wav", word, "two", rate=44100, channels=2) for word in ("one", "five")]
    recognizer = ToneRecognizer()
    found = arkasr.transcribe(paths, model=recognizer, language="de", segmentation="fixed")
    assert [(each.text, each.language, each.seconds) for each in found] == [
        ("one two", "German", 2.0),
        ("five two", "German", 2.0),
    ]
    assert arkasr.transcribe(tmp_path / "one.wav", model=recognizer, segmentation="fixed")[0].text == "one two"


def test_a_failed_file_raises_and_the_others_are_in_the_error(tmp_path):
    path = write(tmp_path / "a.wav", "one")
    with pytest.raises(SomeFailedError, match=r"absent\.wav: no such file.*1 of 2 files failed") as raised:
        arkasr.transcribe([path, tmp_path / "absent.wav"], model=ToneRecognizer(), segmentation="fixed")
    assert [each.text for each in raised.value.transcriptions] == ["one"]
    assert [each.name for each in raised.value.failed] == [str(tmp_path / "absent.wav")]


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_batch_seconds_must_be_above_zero(seconds):
    with pytest.raises(arkasr.UserError, match="must be a number above 0"):
        make_settings(batch_seconds=seconds)


def test_unknown_options_and_languages_are_errors(tmp_path):
    with pytest.raises(TypeError, match="beams"):
        arkasr.transcribe(tmp_path, model=ToneRecognizer(), beams=4)
    with pytest.raises(arkasr.UserError, match="did you mean French"):
        arkasr.transcribe(tmp_path, model=ToneRecognizer(), language="Frnch")


def test_the_name_exists_without_importing_torch():
    program = "import arkasr, sys; assert 'transcribe' in dir(arkasr); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_texts_of_a_batch_are_those_of_single_files(tmp_path):
    model = Recognizer("tiny", student())
    paths = [write(tmp_path / f"{i}.wav", *["three"] * (1 + i)) for i in range(3)]
    together = arkasr.transcribe(paths, model=model, segmentation="fixed")
    alone = [arkasr.transcribe(path, model=model, segmentation="fixed")[0] for path in paths]
    assert together == alone and all(each.text for each in together)
