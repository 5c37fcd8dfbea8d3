"""The one thread that uses the model."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Sequence

import torch

from arkasr.evaluation.one_by_one import is_out_of_memory
from arkasr.interfaces import Transcript
from arkasr.serving.job import Job, window_seconds
from arkasr.serving.metrics import Metrics
from arkasr.serving.queue import Queue, hotwords_of
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.stream import Window
from arkasr.utils.console import log

Pair = tuple[Job, Window]


class Worker:
    """Transcribes batches of windows of all waiting requests.

    Args:
        recognizer: The model. Nothing else uses it meanwhile.
        queue: The queue.
        metrics: Where batches are counted.
    """

    def __init__(self, recognizer: Recognizer, queue: Queue, metrics: Metrics):
        self._recognizer, self._queue, self._metrics = recognizer, queue, metrics
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Start the thread. It ends when the queue is closed."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while (work := self._queue.take()) is not None:
                for job in work.finished:
                    self._finish(job)
                if work.batch:
                    self._transcribe(work.batch)
        except BaseException:  # a bug: no request must wait for a thread that has ended
            traceback.print_exc()
            self._queue.abandon(RuntimeError("the thread of the model has ended"))

    def _transcribe(self, batch: Sequence[Pair]) -> None:
        """Transcribe a batch. Windows without a sound are empty."""
        audible = [pair for pair in batch if pair[1].waveform.any()]
        results = iter(self._results(audible) if audible else [])
        for job, window in batch:
            silent = Transcript("", stopped=True, looping=False, num_tokens=0)
            result = next(results) if window.waveform.any() else silent
            if not job.dropped:
                self._add(job, window, result)
        for job in dict.fromkeys(job for job, _ in batch):
            if not job.dropped:
                job.send(self._recognizer)

    def _add(self, job: Job, window: Window, result: Transcript | Exception) -> None:
        try:
            if isinstance(result, Exception):
                raise result
            job.add(self._recognizer, window, result)
        except Exception as error:  # a bad window fails its request only
            self._fail(job, error)

    def _results(self, batch: Sequence[Pair]) -> list[Transcript | Exception]:
        """Return the transcript of each window. If the batch fails, its halves are tried."""
        started = time.monotonic()
        lengths = [window_seconds(window) for _, window in batch]
        try:
            results: list[Transcript | Exception] = [*self._texts(batch)]
            self._metrics.batch(lengths, time.monotonic() - started)
            return results
        except Exception as error:
            self._note(error, len(batch) * max(lengths))
            if len(batch) == 1:
                return [error]
        half = len(batch) // 2  # outside of the handler, which holds the memory of what failed
        return self._results(batch[:half]) + self._results(batch[half:])

    def _texts(self, batch: Sequence[Pair]) -> list[Transcript]:
        waveforms = [window.waveform for _, window in batch]
        languages = [job.settings.language for job, _ in batch]
        texts = self._recognizer.transcribe(waveforms, languages, *hotwords_of(batch[0][0]))
        if len(texts) != len(batch):
            raise RuntimeError(f"{self._recognizer.name} returned {len(texts)} texts for {len(batch)} windows")
        return texts

    def _note(self, error: Exception, seconds: float) -> None:
        """Write what failed to the log. Batches become smaller if memory ran out."""
        reason = " ".join(str(error).split())[:300]
        if is_out_of_memory(error):
            self._queue.batch_seconds = min(self._queue.batch_seconds, seconds / 2)
            reason = f"memory ran out; batches have {self._queue.batch_seconds:.0f} s from now on"
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        log(f"a batch of {seconds:.0f} s failed: {type(error).__name__}: {reason}")

    def _finish(self, job: Job) -> None:
        try:
            job.post(job.finish(self._recognizer))
        except Exception as error:
            self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        self._queue.drop(job)
        job.post(error)
