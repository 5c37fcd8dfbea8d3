"""Transcriptions over HTTP, with OpenAI's client and the model of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator

import openai
import pytest
from corpus_fixture import clips
from served import Running, served

from arkasr.config.schema import DecodeConfig
from arkasr.data.batches import Batch
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.loading import load_speech_lm
from arkasr.transcription.recognizer import Recognizer

KEY = "k3y"


@pytest.fixture(scope="module")
def service(trained) -> Iterator[Running]:
    recognizer = Recognizer.load(str(trained / "base" / "final"), device="cpu")
    with served(recognizer, KEY, word_times=True) as running:
        yield running


@pytest.fixture(scope="module")
def client(service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def batch(datadir) -> Batch:
    return clips(datadir / "test-a.jsonl.gz")


@pytest.fixture(scope="module")
def audio(datadir, batch) -> list[tuple[str, bytes]]:
    return [(f"{name}.wav", (datadir / "audio" / f"{name}.wav").read_bytes()) for name in batch.ids]


@pytest.fixture(scope="module")
def references(trained, batch) -> list[str]:
    """What `arkasr decode` writes, one clip at a time."""
    lm = load_speech_lm(str(trained / "base" / "final"), "float32", "cpu")
    config = DecodeConfig(max_new_tokens=1000, tokens_per_second=25.0)
    rows = [transcribe(lm, batch.select([clip]), config)[0] for clip in range(len(batch.ids))]
    return [" ".join(row["hypothesis"].split()) for row in rows]


def test_texts_are_those_of_the_recipe(client, audio, references):
    texts = [client.audio.transcriptions.create(file=each, model="base").text for each in audio]
    assert [" ".join(text.split()) for text in texts] == references and any(references)


def test_every_format_has_the_same_text(client, audio, references):
    def create(response_format: str):
        return client.audio.transcriptions.create(file=audio[0], model="base", response_format=response_format)

    assert create("text") == references[0] + "\n"
    verbose = create("verbose_json")
    (segment,) = verbose.segments
    assert (verbose.text.split(), verbose.language) == (references[0].split(), "english")
    assert segment.text == verbose.text and segment.start == 0
    assert segment.end == pytest.approx(verbose.duration, abs=0.01)
    assert verbose.words is None
    first, times, *lines = create("srt").splitlines()
    assert first == "1" and re.fullmatch(r"00:00:0\d,\d{3} --> 00:00:0\d,\d{3}", times)
    assert " ".join(lines).split() == references[0].split()
    head, _, times, *lines = create("vtt").splitlines()
    assert head == "WEBVTT" and re.fullmatch(r"00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}", times)
    assert " ".join(lines).split() == references[0].split()


def test_words_have_times_in_order(client, audio, references):
    options = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    result = client.audio.transcriptions.create(file=audio[0], model="base", **options)
    assert [word.word for word in result.words] == references[0].split()
    times = [time for word in result.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= result.duration + 0.01


def test_the_parts_of_a_stream_are_the_text(client, audio, references):
    events = list(client.audio.transcriptions.create(file=audio[0], model="base", stream=True))
    *deltas, done = events
    assert {each.type for each in deltas} == {"transcript.text.delta"} and done.type == "transcript.text.done"
    assert "".join(each.delta for each in deltas) == done.text and done.text.split() == references[0].split()


def test_a_verbose_stream_ends_with_words_and_times(client, audio):
    options = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"], "stream": True}
    *_, done = client.audio.transcriptions.create(file=audio[0], model="base", **options)
    assert done.duration > 0 and [segment["text"] for segment in done.segments] == [done.text]
    assert [word["word"] for word in done.words] == done.text.split()
    assert done.srt.split("\n", 1)[0] == "1" and " ".join(done.srt.splitlines()[2:]).split() == done.text.split()


def test_models_are_listed(client):
    (model,) = client.models.list().data
    assert (model.id, client.models.retrieve("base").id) == ("base", "base")
    with pytest.raises(openai.NotFoundError, match="'large' is not served here"):
        client.models.retrieve("large")


def test_a_wrong_key_is_refused_everywhere(service, client, audio):
    wrong = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError, match="API key is wrong"):
        wrong.audio.transcriptions.create(file=audio[0], model="base")
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    assert [service.get(path)[0] for path in ("/metrics", "/v1/models/base", "/health", "/")] == [401, 401, 200, 200]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"language": "klingon"}, openai.BadRequestError, "'klingon': is not a language"),
        ({"model": "whisper-1"}, openai.NotFoundError, "'whisper-1' is not served here; use 'base'"),
        ({"temperature": 0.5}, openai.BadRequestError, "temperature must be 0"),
        ({"prompt": "Dear"}, openai.BadRequestError, "prompt is not supported"),
        ({"file": ("a.wav", b"no audio at all")}, openai.BadRequestError, "a.wav: cannot be read as audio"),
        ({"file": ("a.wav", b"")}, openai.BadRequestError, "file is empty"),
    ],
)
def test_a_wrong_request_is_an_error_of_the_client(client, audio, fields, error, message):
    with pytest.raises(error, match=message) as caught:
        client.audio.transcriptions.create(**{"file": audio[0], "model": "base", **fields})
    assert caught.value.code and caught.value.type == "invalid_request_error"


def test_hotwords_are_a_field_of_their_own(client, audio):
    with_word = client.audio.transcriptions.create(file=audio[0], model="base", extra_body={"hotwords": "green, dogs"})
    assert with_word.text
