"""The state of the service: places for requests, and what ends it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

from arkasr.errors import UserError
from arkasr.serving.errors import ApiError, busy
from arkasr.serving.job import Event, Job
from arkasr.serving.limits import Limits
from arkasr.serving.metrics import Metrics
from arkasr.serving.parameters import Parameters, Served
from arkasr.serving.queue import Queue
from arkasr.serving.worker import Worker
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.settings import Settings

KEEP_ALIVE_SECONDS = 15.0  # of silence, after which a stream has a comment; proxies cut silent ones after 30 s or more


class Service:
    """One model, its queue and its clients. All methods belong to the thread of the event loop.

    Args:
        recognizer: The model.
        served: What the service offers.
        limits: What clients may ask for.

    Attributes:
        served: What the service offers.
        limits: What clients may ask for.
        metrics: Numbers for Prometheus.
        uploads: Turns of requests whose bytes are read.
        num_open: Requests that are uploaded, wait or run.
    """

    def __init__(self, recognizer: Recognizer, served: Served, limits: Limits):
        self.served, self.limits = served, limits
        self._queue = Queue(served.settings.batch_seconds)
        self.metrics = Metrics(self._queue.waiting_seconds)
        self._recognizer = recognizer
        self._worker = Worker(recognizer, self._queue, self.metrics)
        self.uploads = asyncio.Semaphore(limits.max_uploads)
        self.num_open, self._uploads_end = 0, math.inf

    def start(self) -> None:
        """Start the thread that uses the model."""
        self._worker.start()

    def drain(self) -> None:
        """Refuse new requests from now on. Uploads have the time of a silent client left."""
        self._uploads_end = time.monotonic() + self.limits.client_timeout

    @property
    def draining(self) -> bool:
        """Whether the service ends when its requests are done. New ones are refused."""
        return self._uploads_end < math.inf

    def upload_time_left(self) -> float:
        """Return the seconds that uploads have left, infinity unless the service ends."""
        return self._uploads_end - time.monotonic()

    def close(self) -> None:
        """End all threads."""
        self._queue.close()

    @property
    def status(self) -> str:
        """`ok`, `draining`, or `broken` if the thread of the model has died."""
        if not self._worker.is_alive:
            return "broken"
        return "draining" if self.draining else "ok"

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one request.

        Yields:
            None, while the place is held.

        Raises:
            ApiError: The service ends, or has no place (503).
        """
        if not self._worker.is_alive:
            raise ApiError(500, "broken", "the thread of the model has ended; tell the operator of this service")
        if self.draining:
            raise busy("the service is ending; send the request again later, or to another one", "draining")
        if self.num_open >= self.limits.max_requests:
            message = f"all {self.limits.max_requests} places for requests are taken (--max_requests); try again soon"
            raise busy(message, "busy")
        self.num_open += 1
        self.metrics.open.set(self.num_open)
        try:
            yield
        finally:
            self.num_open -= 1
            self.metrics.open.set(self.num_open)

    async def events(self, request: Parameters, name: str) -> AsyncGenerator[Event | None, None]:
        """Transcribe one request.

        Args:
            request: The request. Its file is closed.
            name: Name of the file, for messages.

        Yields:
            Parts of the text, then the result or the error. None after each `KEEP_ALIVE_SECONDS` without one of them.
            If the iterator is closed before, the request leaves the queue.

        Raises:
            ApiError: The hotwords are wrong (400), or the request took too long (504).
        """
        loop, posted = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def post(event: Event) -> None:
            with suppress(RuntimeError):  # the loop has ended, with a second signal for example
                loop.call_soon_threadsafe(posted.put_nowait, event)

        job = Job(request.file.file, name, request.settings, self.limits.max_seconds, post)
        deadline = loop.time() + self.limits.request_timeout
        try:
            if request.settings.hotwords:
                await self._check_hotwords(request.settings)
            self._queue.add(job)
            while True:
                yield await self._next(posted, deadline)
        finally:
            self._queue.drop(job)

    async def _next(self, posted: asyncio.Queue[Event], deadline: float) -> Event | None:
        """Return the next event, or None if there is none for a while."""
        left = deadline - asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(posted.get(), min(left, KEEP_ALIVE_SECONDS))
        except TimeoutError as error:
            if left > KEEP_ALIVE_SECONDS:
                return None
            limit = f"{self.limits.request_timeout:g} s (--request_timeout)"
            raise ApiError(504, "request_timeout", f"the request took longer than {limit}; cut the audio") from error

    async def _check_hotwords(self, settings: Settings) -> None:
        check = self._recognizer.check_hotwords
        try:
            await asyncio.to_thread(check, settings.hotwords, settings.hotword_weight)
        except UserError as error:
            raise ApiError(400, "invalid_value", str(error), "hotwords") from error
