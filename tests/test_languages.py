"""arkasr.languages: names and codes in one table."""

import pytest
from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME
from transformers.models.whisper.tokenization_whisper import LANGUAGES as WHISPER

from arkasr.errors import UserError
from arkasr.languages import LANGUAGES, find_language, known_language
from arkasr.scoring.profiles import default_profiles, find_profile

# The languages of the model card of the published ARK-ASR-0.6B.
CARD = """
Chinese English German Japanese French Korean Spanish Polish Italian Romanian Hungarian Czech Dutch Finnish Croatian
Slovak Slovene Estonian Lithuanian
"""


def test_the_table_holds_the_languages_of_the_model_card_and_of_the_teacher():
    assert len(CARD.split()) == 19
    assert set(CARD.split()) | set(LANGUAGE_CODE_TO_NAME.values()) <= set(LANGUAGES)
    for code, name in LANGUAGE_CODE_TO_NAME.items():
        assert LANGUAGES[name].code == code


def test_the_table_holds_the_languages_of_whisper():
    for code, name in WHISPER.items():
        assert known_language(code) == known_language(name) is not None, name


def test_each_language_has_a_metric_and_profiles_that_are_for_it():
    assert {language.metric for language in LANGUAGES.values()} == {"wer", "cer"}
    for name in LANGUAGES:
        assert all(find_profile(profile).fits([name]) for profile in default_profiles(name)), name
    assert (LANGUAGES["Chinese"].metric, LANGUAGES["English"].metric) == ("cer", "wer")


@pytest.mark.parametrize("text", ["German", "german", " GERMAN ", "de", "DE", "de-AT", "de_DE"])
def test_name_and_code_find_the_same_language(text):
    assert find_language(text).name == "German"


def test_codes_are_unique_and_other_names_are_known():
    assert len({language.code for language in LANGUAGES.values()}) == len(LANGUAGES)
    assert find_language("Mandarin").name == "Chinese"
    assert find_language("zh_CN").name == "Chinese"
    assert find_language("Slovenian").name == "Slovene"
    assert known_language("Klingon") is None


def test_an_unknown_language_names_the_nearest():
    with pytest.raises(UserError, match=r"corpus.yaml: language 'Germn': .*did you mean German\?\); use an"):
        find_language("Germn", "corpus.yaml: language")
    with pytest.raises(UserError, match="'Xq': is not a language that is known here; use an English name"):
        find_language("Xq")
