"""Paths of the service beside transcriptions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from processes import wait_until
from scripted_recognizer import ScriptedRecognizer
from served import Running, request, served, tone


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with served(ScriptedRecognizer(), max_mib=2, max_seconds=60) as running:
        yield running


def test_paths_that_do_not_exist_have_errors_of_the_same_shape(service):
    wrong = [("GET", "/v2", 404), ("POST", "/v1/models", 405), ("GET", "/v1/audio/transcriptions", 405)]
    for method, path, expected in wrong:
        status, body, _ = request(service.port, method, path)
        assert (status, set(body["error"])) == (expected, {"message", "type", "param", "code"}), path


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
