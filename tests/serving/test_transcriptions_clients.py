"""Clients that send nonsense, too much, too slowly or all at once, or that leave."""

from __future__ import annotations

import io
import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from processes import wait_until
from scripted_recognizer import BAD, ScriptedRecognizer
from served import BOUNDARY, Running, form, served, tone

from arkasr.transcription.settings import Settings

PATH = "/v1/audio/transcriptions"


@pytest.fixture
def recognizer() -> ScriptedRecognizer:
    return ScriptedRecognizer()


@pytest.fixture
def service(recognizer) -> Iterator[Running]:
    with served(recognizer, max_mib=1, max_seconds=30, max_requests=6, max_uploads=2) as running:
        yield running
        recognizer.go.set()


def head(length: int, path: str = PATH) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    ).encode()


def connect(service: Running, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    client.sendall(data)
    return client


def answer(client: socket.socket) -> tuple[int, str]:
    """Read until the service closes the connection."""
    with client:
        data = b"".join(iter(lambda: client.recv(65536), b""))
    return (int(data.split()[1]) if data else 0), data.partition(b"\r\n\r\n")[2].decode()


def assert_idle(service: Running) -> None:
    """All places are free, and another request is answered."""
    wait_until(lambda: service.service.num_open == 0, 20)
    assert service.post({}, tone(1))[:2] == (
        200,
        {"text": "1 s English", "usage": {"type": "duration", "seconds": 1.0}},
    )


@pytest.mark.parametrize(
    ("fields", "audio", "code"),
    [({"model": "base"}, None, "missing_file"), ({"file": "http://127.0.0.1/a.wav"}, None, "missing_file")],
)
def test_a_form_without_a_file_is_refused(service, fields, audio, code):
    status, body, _ = service.post(fields, audio)
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, code, "file")


def test_what_is_no_form_is_refused(service):
    headers = {"Content-Type": "application/json"}
    assert service.post({}, tone(1), headers=headers)[0] == 400


def test_a_large_upload_is_refused_while_it_is_sent(service):
    """The client gets the answer, even though it only reads after it has sent everything."""
    status, body, headers = service.post({}, bytes(6 * 2**20))
    assert (status, body["error"]["code"], headers["connection"]) == (413, "file_too_large", "close")
    assert_idle(service)


def test_an_upload_without_end_is_refused(service):
    """Zeros in chunks, without a length, until the service has had enough."""
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    start = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    begin = form({}, b"")[: -len(BOUNDARY) - 8]
    client = connect(service, start + f"{len(begin):x}\r\n".encode() + begin + b"\r\n")
    end = time.monotonic() + 60
    with pytest.raises(OSError):
        while time.monotonic() < end:
            client.sendall(chunk)
    client.close()
    assert_idle(service)


def test_audio_that_is_too_long_is_refused(service):
    status, body, _ = service.post({}, b"".join([tone(31)]))
    assert (status, body["error"]["code"]) == (413, "audio_too_long")


def test_silent_and_slow_clients_lose_their_places(recognizer):
    with served(recognizer, max_requests=6, max_uploads=2, client_timeout=1) as service:
        silent = [connect(service), connect(service, b"POST ")]
        stalled = [connect(service, head(10**5) + form({}, b"")[:50]) for _ in range(4)]
        assert [answer(client)[0] for client in silent] == [0, 0]
        statuses = [answer(client)[0] for client in stalled]
        assert set(statuses) <= {408, 503} and statuses.count(408) >= 2  # those that wait for their turn get 503
        assert_idle_after(service)


def test_a_client_that_leaves_frees_its_place(service, recognizer):
    recognizer.go.clear()
    body = form({}, tone(20))
    running, waiting = (connect(service, head(len(body)) + body) for _ in range(2))
    wait_until(lambda: service.service.num_open == 2 and len(recognizer.batches) == 1)
    waiting.close()
    wait_until(lambda: service.service.num_open == 1)
    running.close()
    wait_until(lambda: service.service.num_open == 0)
    assert service.service._queue.waiting_seconds() == 0
    recognizer.go.set()
    assert_idle(service)
    assert service.metric("requests_total") == 3 and len(recognizer.batches) == 2


def test_requests_without_a_place_are_told_to_come_back(service, recognizer):
    recognizer.go.clear()
    body = form({}, tone(1))
    clients = [connect(service, head(len(body)) + body) for _ in range(6)]
    wait_until(lambda: service.service.num_open == 6)
    status, answer_body, headers = service.post({}, tone(1))
    assert (status, answer_body["error"]["code"], int(headers["retry-after"])) == (503, "busy", 2)
    for client in clients:
        client.close()
    recognizer.go.set()
    assert_idle(service)


def test_200_clients_at_once_are_all_answered(recognizer):
    with served(recognizer, max_requests=150, max_uploads=20) as service, ThreadPoolExecutor(200) as pool:
        audio = tone(0.5)
        results = list(pool.map(lambda _: service.post({"response_format": "text"}, audio), range(200)))
        assert {status for status, *_ in results} <= {200, 503} and len(results) == 200
        done = [text for status, text, _ in results if status == 200]
        assert len(done) >= 150 and set(done) == {"0.5 s English\n"}
        assert all(headers["retry-after"] for status, _, headers in results if status == 503)
        assert sum(map(len, recognizer.batches)) == len(done) > len(recognizer.batches)
        assert_idle_after(service)


def assert_idle_after(service: Running) -> None:
    wait_until(lambda: service.service.num_open == 0)
    assert service.get("/health") == (200, {"status": "ok", "open_requests": 0})


def test_a_request_that_takes_too_long_ends(recognizer):
    recognizer.go.clear()
    with served(recognizer, request_timeout=0.3) as service:
        status, body, _ = service.post({}, tone(1))
        assert (status, body["error"]["code"]) == (504, "request_timeout")
        recognizer.go.set()
        assert_idle_after(service)


def test_an_error_after_the_stream_began_is_an_event(recognizer):
    settings = Settings(segmentation="fixed", window_seconds=4, batch_seconds=4)
    with served(recognizer, settings=settings, max_seconds=40) as service:
        status, body, headers = service.post({"stream": "true"}, tone(50))
        assert status == 200 and headers.get_content_type() == "text/event-stream"
        events = [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n") if line]
        assert events[0]["type"] == "transcript.text.delta" and 0 < events[0]["seconds"] <= 4
        assert events[-1]["error"]["code"] == "audio_too_long"
        assert_idle_after(service)


def test_what_the_model_cannot_transcribe_is_an_error_of_that_request(service, recognizer):
    file = io.BytesIO()
    soundfile.write(file, np.full(16000, BAD, np.float32), 16000, format="WAV", subtype="FLOAT")
    status, body, _ = service.post({}, file.getvalue())
    assert (status, body["error"]["message"]) == (400, "the window is bad")
    assert_idle(service)


def test_the_name_of_a_file_is_no_path_and_no_text_of_the_log(service, capfd):
    body = form({}, b"no audio", name="../../etc/\x1b[31mpasswd")
    status, answered = answer(
        connect(service, head(len(body)).replace(b"Host: a", b"Host: a\r\nConnection: close") + body)
    )
    assert status == 400 and "\x1b" not in answered
    assert_idle(service)
    assert "passwd" not in capfd.readouterr().out


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile '{url}'\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1"><BaseURL>{url}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)


@pytest.mark.parametrize("text", [PLAYLIST, CONCAT, DASH], ids=["hls", "concat", "dash"])
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_an_upload_that_names_other_audio_is_not_followed(service, recognizer, tmp_path, text, scheme):
    """Neither a request to another server is made, nor a file of the service read."""
    requests = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            requests.append(self.request.recv(1000))

    (tmp_path / "secret.wav").write_bytes(tone(1))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = (
            f"http://127.0.0.1:{server.server_address[1]}/a.wav"
            if scheme == "http"
            else f"file://{tmp_path}/secret.wav"
        )
        for name in ("a.m3u8", "a.ffconcat", "a.mpd", "a.wav"):
            status, body, _ = service.post({}, text.format(url=url).encode())
            assert (status, body["error"]["code"]) == (400, "invalid_audio"), name
        time.sleep(0.1)
        server.shutdown()
    assert requests == [] and recognizer.batches == []
