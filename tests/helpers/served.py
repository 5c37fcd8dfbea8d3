"""The service in a thread of the test, on a port of its own, and clients below the level of HTTP libraries."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

from arkasr.serving.app import make_app
from arkasr.serving.limits import Limits
from arkasr.serving.parameters import Served
from arkasr.serving.server import address_of, bind, run_until
from arkasr.serving.service import Service
from arkasr.transcription.settings import Settings

BOUNDARY = "b0undary"
SETTINGS = Settings(segmentation="fixed")


@dataclass
class Running:
    """A running service."""

    url: str
    service: Service
    end: Any  # begins to end it, from any thread

    @property
    def port(self) -> int:
        return urllib.parse.urlsplit(self.url).port

    def get(self, path: str, key: str = "") -> tuple[int, Any]:
        return request(self.port, "GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})[:2]

    def post(self, fields: Mapping[str, str], audio: bytes | None = b"", **options: Any) -> tuple[int, Any, Any]:
        """Send one transcription. Returns status, body and headers."""
        body = form(fields, audio)
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} | options.pop("headers", {})
        return request(self.port, "POST", "/v1/audio/transcriptions", body, headers, **options)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        found = re.findall(rf"^arkasr_{name}(?:\{{.*\}})? (\S+)$", self.get("/metrics")[1], re.M)
        return sum(map(float, found))


def request(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}
) -> tuple[int, Any, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    is_json = answer.headers.get_content_type() == "application/json"
    return answer.status, json.loads(text) if is_json else text, answer.headers


def form(fields: Mapping[str, str], audio: bytes | None = None, name: str = "a.wav") -> bytes:
    """Return a multipart form."""
    parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    if audio is not None:
        parts.append(f'name="file"; filename="{name}"\r\n\r\n'.encode() + audio)
    begin = f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(begin + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def tone(seconds: float, seed: int = 0) -> bytes:
    """Return a WAV file with noise."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.1, 0.1, round(16000 * seconds))
    soundfile.write(file, samples.astype(np.float32), 16000, format="WAV")
    return file.getvalue()


@contextmanager
def served(
    recognizer: Any, key: str = "", settings: Settings = SETTINGS, word_times: bool = False, **limits: Any
) -> Iterator[Running]:
    """Run the service until the block ends. Its requests end first."""
    running, ready = [], threading.Event()
    listening = bind("127.0.0.1", 0)

    async def main() -> None:
        service = Service(recognizer, Served("base", settings, word_times), Limits(**limits))
        loop, ending = asyncio.get_running_loop(), asyncio.Event()
        running.append(Running(address_of(listening), service, lambda: loop.call_soon_threadsafe(ending.set)))
        ready.set()
        await run_until(ending, make_app(service, key), service, listening)

    thread = threading.Thread(target=asyncio.run, args=[main()], daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield running[0]
    finally:
        running[0].end()
        thread.join(60)
    assert not thread.is_alive(), "the service has not ended"
