"""Paths of the service beside transcriptions."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from processes import wait_until
from scripted_recognizer import ScriptedRecognizer
from served import Running, request, served, tone


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with served(ScriptedRecognizer(), max_mib=2, max_seconds=60) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "expected", "words"),
    [
        ("GET", "/v2", 404, "/v2 is not a path of this service; clients of OpenAI's API use the base address with /v1"),
        ("POST", "/audio/transcriptions", 404, "/v1 at its end"),
        ("POST", "/v1/audio/translations", 404, "is not a path"),
        ("POST", "/v1/audio/transcriptions/", 404, "is not a path"),  # no redirect to the address behind a proxy
        ("GET", "/" + "a" * 9000, 404, "a" * 99 + " is not"),
        ("GET", "/page/..%2froutes.py", 404, "is not a path"),
        ("GET", "/v1/%1b[31m", 404, r"\x1b[31m is not"),
        ("POST", "/v1/models", 405, "/v1/models does not answer POST; use HEAD, GET"),
        ("GET", "/v1/audio/transcriptions", 405, "use POST"),
        ("OPTIONS", "/v1/audio/transcriptions", 405, "does not answer OPTIONS; use POST"),
        ("OPTIONS", "/", 405, "use HEAD, GET"),
        ("DELETE", "/health", 405, "use HEAD, GET"),
    ],
)
def test_paths_that_do_not_exist_have_errors_of_the_same_shape(service, method, path, expected, words):
    status, body, _ = request(service.port, method, path)
    assert (status, set(body["error"])) == (expected, {"message", "type", "param", "code"})
    assert words in body["error"]["message"].replace("GET, HEAD", "HEAD, GET")


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/v1/models", "/page/app.js"])
def test_head_has_the_headers_of_get_and_no_body(service, path):
    answers = []
    for method in ("HEAD", "GET"):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.request(method, path)
        answers.append(answer := connection.getresponse())
        assert (answer.read() == b"") is (method == "HEAD")
        connection.close()
    head, get = answers
    assert (head.status, head.headers["content-type"]) == (200, get.headers["content-type"])


def test_a_large_upload_to_a_wrong_path_gets_its_answer(service):
    """The client reads after it has sent everything."""
    status, body, _ = request(service.port, "POST", "/v1/audio/translations", bytes(20 * 2**20))
    assert (status, body["error"]["code"]) == (404, "unknown_path")


def test_metrics_count_requests_audio_and_batches(service):
    before = {name: service.metric(name) for name in ("requests_total", "audio_seconds_total", "batch_windows_sum")}
    assert service.post({}, tone(2))[0] == 200 and service.post({}, b"")[0] == 400
    wait_until(lambda: service.metric("requests_total") == before["requests_total"] + 2)
    assert service.metric("audio_seconds_total") == before["audio_seconds_total"] + 2
    assert service.metric("batch_windows_sum") == before["batch_windows_sum"] + 1
    assert service.metric("open_requests") == service.metric("waiting_audio_seconds") == 0


def test_the_page_knows_the_limits(service):
    status, settings = service.get("/page/settings.json")
    assert status == 200 and "<html" in service.get("/")[1]
    assert (settings["model"], settings["max_bytes"], settings["max_seconds"]) == ("base", 2 * 2**20, 60)
    assert settings["word_times"] is False


def test_health_tells_when_the_model_has_failed(monkeypatch):
    """What is not even an Exception ends the worker. The service says so, and no request waits for it."""
    recognizer = ScriptedRecognizer()

    def fail(*_: object) -> None:
        raise SystemExit(1)

    with served(recognizer) as running:
        assert running.get("/health")[0] == 200
        monkeypatch.setattr(recognizer, "transcribe", fail)
        status, body, _ = running.post({}, tone(1))
        assert (status, body["error"]["code"]) == (500, "internal_error")
        wait_until(lambda: running.get("/health")[0] == 503)
        assert running.get("/health")[1]["status"] == "broken"
        status, body, _ = running.post({}, tone(1))
        assert (status, body["error"]["code"]) == (500, "broken")
