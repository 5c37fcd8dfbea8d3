"""Comments in streams that would otherwise be silent, and clients that ignore them."""

from __future__ import annotations

import http.client
import io
import json
import threading
from collections.abc import Iterator

import browser
import numpy as np
import openai
import pytest
import soundfile
from processes import wait_until
from scripted_recognizer import BAD, ScriptedRecognizer
from served import BOUNDARY, Running, form, served, tone
from service_page import Page, show

from arkasr.serving import service as service_module

COMMENT = ": keep-alive"


@pytest.fixture
def recognizer() -> ScriptedRecognizer:
    recognizer = ScriptedRecognizer()
    recognizer.go.clear()
    return recognizer


@pytest.fixture
def service(recognizer, monkeypatch) -> Iterator[Running]:
    monkeypatch.setattr(service_module, "KEEP_ALIVE_SECONDS", 0.05)
    with served(recognizer) as running:
        yield running
        recognizer.go.set()


def begin(service: Running, fields: dict[str, str], audio: bytes) -> http.client.HTTPConnection:
    """Send a request and do not read its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    connection.request("POST", "/v1/audio/transcriptions", form(fields, audio), headers)
    return connection


def test_a_silent_stream_has_comments_until_the_text(service, recognizer):
    answer = begin(service, {"stream": "true"}, tone(1)).getresponse()
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/event-stream")
    assert [answer.readline() for _ in range(4)] == [f"{COMMENT}\n".encode(), b"\n"] * 2
    recognizer.go.set()
    blocks = [block for block in answer.read().decode().split("\n\n") if block not in ("", COMMENT)]
    assert [json.loads(block.removeprefix("data: "))["type"] for block in blocks] == [
        "transcript.text.delta",
        "transcript.text.done",
    ]


def test_an_error_after_a_comment_is_an_event(service, recognizer):
    file = io.BytesIO()
    soundfile.write(file, np.full(16000, BAD, np.float32), 16000, format="WAV", subtype="FLOAT")
    answer = begin(service, {"stream": "true"}, file.getvalue()).getresponse()
    assert answer.status == 200 and answer.readline() == f"{COMMENT}\n".encode()
    recognizer.go.set()
    last = answer.read().decode().strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "the window is bad"


def test_an_answer_that_is_no_stream_has_no_comments(service, recognizer):
    connection = begin(service, {}, tone(1))
    wait_until(lambda: recognizer.batches)
    threading.Timer(0.3, recognizer.go.set).start()
    answer = connection.getresponse()
    assert answer.headers.get_content_type() == "application/json" and json.load(answer)["text"] == "1 s English"


def test_a_request_that_takes_too_long_ends_in_spite_of_comments(recognizer, monkeypatch):
    monkeypatch.setattr(service_module, "KEEP_ALIVE_SECONDS", 0.05)
    with served(recognizer, request_timeout=0.4) as running:
        status, body, _ = running.post({"stream": "true"}, tone(1))
        recognizer.go.set()
    *comments, error = body.strip().split("\n\n")
    assert status == 200 and set(comments) == {COMMENT} and 2 <= len(comments) <= 8
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "request_timeout"


def test_openais_client_ignores_comments(service, recognizer):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        stream = client.audio.transcriptions.create(file=("a.wav", tone(1)), model="base", stream=True)
        threading.Timer(0.3, recognizer.go.set).start()  # after some comments, the first of which was the answer's head
        delta, done = stream
    assert (delta.delta, done.text) == ("1 s English", "1 s English")


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason=f"needs one of the programs {', '.join(browser.NAMES)}")
def test_the_page_ignores_comments(service, recognizer, chromium, clip):
    show(chromium, service.url)
    page = Page(chromium)
    page.add(clip)
    page.wait(".state", "Recognising speech")
    chromium.wait_for_event("Network.dataReceived")  # comments, because the model waits
    assert page.text(".state") == "Recognising speech" and page.text(".transcript") == page.text(".problem") == ""
    recognizer.go.set()
    page.finish()
    assert page.text(".transcript") == "3 s English" and page.text(".problem") == ""
    assert chromium.complaints == []
