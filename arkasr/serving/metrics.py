"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, histograms and gauges of one service.

    Args:
        waiting_seconds: Returns the seconds of audio that wait for the model.
    """

    def __init__(self, waiting_seconds: Callable[[], float] = lambda: 0.0):
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        own: dict[str, Any] = {"namespace": "arkasr", "registry": self.registry}
        self._requests = Counter("requests", "Transcriptions by status code", ["status"], **own)
        self._seconds = Histogram("request_seconds", "Seconds of a transcription", buckets=SECONDS, **own)
        self._audio = Counter("audio_seconds", "Seconds of audio in finished transcriptions", **own)
        self.open = Gauge("open_requests", "Requests that are uploaded, wait or run", **own)
        self._windows = Histogram("batch_windows", "Windows per batch", buckets=WINDOWS, **own)
        self._busy = Counter("batch_seconds", "Seconds in which the model transcribed batches", **own)
        self._padding = Counter("padding_seconds", "Seconds of padding in batches", **own)
        Gauge("waiting_audio_seconds", "Seconds of audio that wait for the model", **own).set_function(waiting_seconds)

    def request(self, status: str, seconds: float, audio: float) -> None:
        """Count one request.

        Args:
            status: Status code of its answer, or that the client has left.
            seconds: Seconds from its first byte to the last one of the answer.
            audio: Seconds of audio, 0 if there is no result.
        """
        self._requests.labels(status).inc()
        self._seconds.observe(seconds)
        self._audio.inc(audio)

    def batch(self, lengths: Sequence[float], seconds: float) -> None:
        """Count one batch.

        Args:
            lengths: Seconds of its windows.
            seconds: Seconds that the model took.
        """
        self._windows.observe(len(lengths))
        self._busy.inc(seconds)
        self._padding.inc(len(lengths) * max(lengths) - sum(lengths))

    def text(self) -> bytes:
        """Return all numbers in the text format of Prometheus.

        Returns:
            The text.
        """
        return generate_latest(self.registry)
