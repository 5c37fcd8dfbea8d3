"""Which languages a model accepts, and which ones its card names."""

from __future__ import annotations

import io

import pytest
from scripted_recognizer import ScriptedRecognizer
from starlette.datastructures import FormData, UploadFile
from tiny import student, teacher

from arkasr.errors import UserError
from arkasr.languages import LANGUAGES
from arkasr.model.speech_lm.qwen3_asr import LANGUAGES as OF_QWEN
from arkasr.serving.errors import ApiError
from arkasr.serving.languages import ModelLanguages, check_language, languages_of
from arkasr.serving.parameters import Served, read_parameters
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings

GERMAN_ONLY = ModelLanguages(tuple(LANGUAGES), ("German",))
TWO = ModelLanguages(("Chinese", "German"))


def test_a_model_whose_prompt_names_no_language_accepts_all(tmp_path):
    assert languages_of(Recognizer(str(tmp_path), student(2))) == (tuple(LANGUAGES), ())


def test_a_model_whose_prompt_names_the_language_accepts_those_of_its_prompt(tmp_path):
    accepted = languages_of(Recognizer(str(tmp_path), teacher(2))).accepted
    assert set(accepted) == set(OF_QWEN) and len(accepted) < len(LANGUAGES)


def test_a_plugin_accepts_all():
    assert languages_of(ScriptedRecognizer()) == ModelLanguages()


@pytest.mark.parametrize(
    ("block", "trained"),
    [
        ("language:\n- de", ("German",)),
        ("language: zh", ("Chinese",)),
        ("language: [en, no, multilingual, yue]", ("Cantonese", "English", "Norwegian")),  # `no` is false in YAML
        ("license: mit", ()),
    ],
)
def test_the_card_names_the_languages_of_the_training(tmp_path, block, trained):
    (tmp_path / "README.md").write_text(f"---\n{block}\n---\n\n# A model\n")
    assert languages_of(Recognizer(str(tmp_path), student(2))).trained == trained


def test_a_card_of_a_qwen_names_no_language_that_it_refuses(tmp_path):
    (tmp_path / "README.md").write_text("---\nlanguage: [en, cy]\n---\n")
    assert languages_of(Recognizer(str(tmp_path), teacher(2))).trained == ("English",)


@pytest.mark.parametrize("text", [b"---\nlanguage: [\n---\n", b"---\n- a\n---\n", b"\xff\xfe---"])
def test_a_card_that_cannot_be_read_is_named_and_not_fatal(tmp_path, text, capfd):
    (tmp_path / "README.md").write_bytes(text)
    assert languages_of(Recognizer(str(tmp_path), student(2))) == ModelLanguages()
    assert f"warning: {tmp_path}/README.md: the languages" in capfd.readouterr().out


def test_a_default_that_the_model_refuses_is_an_error_at_the_start():
    with pytest.raises(UserError, match="--language Welsh: base accepts Chinese, German; name one of them"):
        check_language("Welsh", "base", TWO)
    check_language("German", "base", TWO)


def test_a_default_that_the_model_was_not_trained_on_is_a_warning(capfd):
    check_language("German", "base", GERMAN_ONLY)
    assert capfd.readouterr().out == ""
    check_language("English", "base", GERMAN_ONLY)
    assert "base was trained on German, but requests that name no language get English" in capfd.readouterr().out


def test_a_request_for_a_language_that_the_model_refuses_is_wrong():
    file = UploadFile(io.BytesIO(b"abcd"), size=4, filename="a.wav")
    served = Served("base", Settings(language="German"), False, TWO)
    assert read_parameters(FormData([("file", file), ("language", "zh")]), served).settings.language == "Chinese"
    with pytest.raises(
        ApiError, match="language Welsh is not one that base transcribes; use Chinese, German"
    ) as caught:
        read_parameters(FormData([("file", file), ("language", "cy")]), served)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_language")
