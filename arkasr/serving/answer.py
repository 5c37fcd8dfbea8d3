"""The answer to one transcription request, and its line in the log and in the metrics."""

from __future__ import annotations

import time
import uuid

from starlette.responses import Response
from starlette.types import Receive, Send

from arkasr.serving.connection import answer_early
from arkasr.serving.errors import ApiError
from arkasr.serving.metrics import Metrics
from arkasr.serving.responses import sse
from arkasr.utils.console import log

EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
GONE = "client gone"


class Answer:
    """What is sent to a client.

    Args:
        receive: Returns the next message of the client.
        send: Sends a message to the client.

    Attributes:
        read: Whether the whole request was read.
        seconds: Seconds of audio, once they are known.
    """

    def __init__(self, receive: Receive, send: Send):
        self._receive, self._send = receive, send
        self._started, self._id = time.monotonic(), uuid.uuid4().hex
        self._status, self._reason, self._streaming = GONE, "", False
        self.read, self.seconds = False, 0.0

    async def respond(self, response: Response) -> None:
        """Send a whole answer.

        Args:
            response: The answer.
        """
        self._start(response)
        await self._send(
            {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        )
        await self._send({"type": "http.response.body", "body": response.body})

    async def part(self, event: bytes, last: bool = False) -> None:
        """Send one server-sent event, or a comment.

        Args:
            event: Bytes of the event or of the comment.
            last: Whether it is the last one.
        """
        if not self._streaming:
            response = Response(headers=EVENTS)
            del response.headers["content-length"]
            self._start(response)
            self._streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await self._send({"type": "http.response.body", "body": event, "more_body": not last})

    async def refuse(self, error: ApiError) -> None:
        """Tell the client of an error. If a stream has begun, it is the last event.

        Args:
            error: The error.
        """
        if self._streaming:
            await self.part(sse(error.body), last=True)
        elif self.read:
            await self.respond(error.response)
        else:
            response = error.response
            self._start(response)
            await answer_early(response, self._receive, self._send)
        self._status, self._reason = str(error.status), f" ({error.code})"

    def gone(self) -> None:
        """Note that the client has closed its connection before its answer was complete."""
        self._status = GONE

    def _start(self, response: Response) -> None:
        response.headers["x-request-id"] = self._id
        self._status = str(response.status_code)

    def count(self, metrics: Metrics) -> None:
        """Write the line of the log, which has neither names nor texts, and count the request.

        Args:
            metrics: Where it is counted.
        """
        spent = time.monotonic() - self._started
        metrics.request(self._status, spent, self.seconds)
        log(f"transcription {self._id}: {self._status}{self._reason}, {self.seconds:.1f} s of audio, {spent:.2f} s")
