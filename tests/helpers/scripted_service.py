"""The page of the service, with answers that a test writes: statuses, events, and the moments when they are sent."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from arkasr.serving.page.routes import PageSettings, page_routes


@dataclass
class Answer:
    """One answer to `POST /v1/audio/transcriptions`. `go` holds back the last event, or the whole of an error."""

    events: Sequence[Mapping[str, Any]] = ()
    status: int = 200
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    go: threading.Event | None = None

    async def response(self) -> Response:
        if self.status == 200:
            return StreamingResponse(self._stream(), media_type="text/event-stream", headers=self.headers)
        await self._hold()
        return JSONResponse({"error": {"message": self.message}}, self.status, self.headers)

    async def _stream(self) -> AsyncIterator[str]:
        for place, event in enumerate(self.events, 1):
            if place == len(self.events):
                await self._hold()
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"

    async def _hold(self) -> None:
        while self.go is not None and not self.go.is_set():
            await asyncio.sleep(0.02)


@dataclass
class Scripted:
    """A running service. `answers` are given in their order, the last one again and again. `forms` are what came."""

    url: str
    answers: deque[Answer] = field(default_factory=deque)
    forms: list[dict[str, Any]] = field(default_factory=list)
    key: str = ""
    reading: int = 0  # requests whose form is read now

    def script(self, *answers: Answer, key: str = "") -> None:
        while self.reading:  # an upload that was cancelled may have arrived in full
            time.sleep(0.02)
        self.answers, self.key = deque(answers), key
        self.forms.clear()

    async def transcribe(self, request: Request) -> Response:
        self.reading += 1
        try:
            async with request.form() as form:
                self.forms.append({name: each.filename if name == "file" else each for name, each in form.items()})
        finally:
            self.reading -= 1
        if not self._knows(request):
            return JSONResponse({"error": {"message": "the API key is missing"}}, 401)
        return await (self.answers.popleft() if len(self.answers) > 1 else self.answers[0]).response()

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": []}, 200 if self._knows(request) else 401)

    def _knows(self, request: Request) -> bool:
        return not self.key or request.headers.get("authorization") == f"Bearer {self.key}"


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Run an application in a thread. Yields its address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def scripted_service(settings: PageSettings) -> Iterator[Scripted]:
    """Run the routes of the page and a scripted transcription."""
    service = Scripted("")
    routes = [
        *page_routes(settings),
        Route("/v1/audio/transcriptions", service.transcribe, methods=["POST"]),
        Route("/v1/models", service.models),
    ]
    with running(Starlette(routes=routes)) as service.url:
        yield service
