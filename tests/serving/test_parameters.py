"""Fields of a transcription request."""

from __future__ import annotations

import io

import pytest
from starlette.datastructures import FormData, UploadFile

from arkasr.serving.errors import ApiError
from arkasr.serving.parameters import Served, read_parameters
from arkasr.transcription.settings import Settings

SERVED = Served("base", Settings(language="German", hotwords=("Ark",)), word_times=True)


def audio(size: int = 4) -> UploadFile:
    return UploadFile(io.BytesIO(bytes(size)), size=size, filename="a.wav")


def form(*pairs: tuple[str, str | UploadFile]) -> FormData:
    return FormData([("file", audio()), *pairs])


def test_defaults_are_those_of_the_service():
    read = read_parameters(form(), SERVED)
    assert (read.settings, read.response_format, read.stream) == (SERVED.settings, "json", False)


@pytest.mark.parametrize("language", ["FR", "french", "Fr-ca", "fr_FR", " fr "])
def test_a_language_may_have_any_case_and_a_region(language):
    assert read_parameters(form(("language", language)), SERVED).settings.language == "French"


def test_a_long_wrong_value_is_cut_in_its_message():
    for name in ("language", "response_format", "x" * 9000):
        with pytest.raises(ApiError) as caught:
            read_parameters(form((name, "x" * 60000)), SERVED)
        assert len(str(caught.value)) < 300, name


def test_fields_of_openais_client_are_read():
    pairs = [("model", "base"), ("language", "fr"), ("response_format", "verbose_json"), ("temperature", "0.0")]
    pairs += [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment"), ("stream", "true")]
    pairs += [("chunking_strategy", "auto"), ("prompt", ""), ("hotwords", "Ark-ASR, Soest\nVUSS,,")]
    read = read_parameters(form(*pairs), SERVED)
    assert read.settings.language == "French" and read.settings.word_times and read.stream
    assert read.settings.hotwords == ("Ark-ASR", "Soest", "VUSS") and read.response_format == "verbose_json"


@pytest.mark.parametrize(
    ("pair", "param", "words"),
    [
        (("language", "xx"), "language", "is not a language"),
        (("language", "Germann"), "language", "did you mean German?"),
        (("temperature", "0.4"), "temperature", "must be 0"),
        (("temperature", "nan"), "temperature", "must be 0"),
        (("prompt", "a text"), "prompt", "not supported"),
        (("include[]", "logprobs"), "include", "not supported"),
        (("chunking_strategy", '{"type": "server_vad"}'), "chunking_strategy", "must be auto"),
        (("response_format", "xml"), "response_format", "must be json, text, srt, verbose_json or vtt, got 'xml'"),
        (("stream", "maybe"), "stream", "must be true or false"),
        (("timestamp_granularities[]", "word"), "timestamp_granularities", "need response_format verbose_json"),
        (("timestamp_granularities[]", "phone"), "timestamp_granularities", "must be segment or word"),
        (("langauge", "en"), "langauge", "did you mean language?"),
        (("language", audio()), "language", "must be text"),
        (("file", "a.wav"), "file", "is sent twice"),
        (("hotwords", "ark," * 1025), "hotwords", "may have 4096 characters, got 4100"),
    ],
)
def test_a_wrong_field_is_named(pair, param, words):
    with pytest.raises(ApiError) as caught:
        read_parameters(form(pair), SERVED)
    assert (caught.value.status, caught.value.param) == (400, param) and words in str(caught.value)


@pytest.mark.parametrize(
    ("response_format", "expected"), [("srt", True), ("vtt", True), ("text", False), ("json", False)]
)
def test_subtitles_are_divided_by_times_of_words(response_format, expected):
    for known in (True, False):
        read = read_parameters(form(("response_format", response_format)), SERVED._replace(word_times=known))
        assert read.settings.word_times == (expected and known)


def test_an_unknown_model_is_not_found():
    with pytest.raises(ApiError, match="'whisper-1' is not served here; use 'base'") as caught:
        read_parameters(form(("model", "whisper-1")), SERVED)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_only_json_is_streamed(response_format):
    with pytest.raises(ApiError, match="json or verbose_json"):
        read_parameters(form(("stream", "true"), ("response_format", response_format)), SERVED)


def test_a_field_that_is_sent_twice_is_refused():
    with pytest.raises(ApiError, match="language is sent twice"):
        read_parameters(form(("language", "en"), ("language", "de")), SERVED)


def test_words_need_a_model_that_times_them():
    pairs = ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")
    with pytest.raises(ApiError, match="no CTC head"):
        read_parameters(form(*pairs), SERVED._replace(word_times=False))


@pytest.mark.parametrize(
    ("file", "words"), [(None, "is missing"), ("http://a/b.wav", "must be a file"), (audio(0), "is empty")]
)
def test_the_file_must_be_a_file(file, words):
    with pytest.raises(ApiError, match=words) as caught:
        read_parameters(FormData([] if file is None else [("file", file)]), SERVED)
    assert (caught.value.status, caught.value.param) == (400, "file")
