"""The queue between requests and the model. Audio is read ahead by threads, a little per request."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from arkasr.serving.fair import choose
from arkasr.serving.job import Job, window_seconds
from arkasr.transcription.stream import Window

AHEAD = 8  # batches of audio that are read ahead for all requests together


class Work(NamedTuple):
    """What the worker does next.

    Attributes:
        batch: Windows with their jobs, to be transcribed together. Their hotwords are equal.
        finished: Jobs whose windows were all transcribed.
    """

    batch: list[tuple[Job, Window]]
    finished: list[Job]


class Queue:
    """Jobs, fair to each.

    In turn, the oldest of the jobs that were never served and the one that was served least recently decide what the
    next batch is like. So a short job does not wait for long ones, and many short ones do not hold up a long one.

    Args:
        batch_seconds: Seconds of audio per batch, padding included.

    Attributes:
        batch_seconds: The same. The worker lowers it if memory runs out.
    """

    def __init__(self, batch_seconds: float):
        self.batch_seconds = batch_seconds
        self._jobs: list[Job] = []  # in the order of their last service, or of their arrival
        self._changed = threading.Condition()
        self._readers = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "read-audio")
        self._closed = self._new_was_first = False

    def add(self, job: Job) -> None:
        """Accept a job. Its audio is read by a thread.

        Args:
            job: The job.
        """
        with self._changed:
            self._jobs.append(job)
            self._refill()

    def drop(self, job: Job) -> None:
        """Forget a job. Its windows leave the queue, and its audio is closed.

        Args:
            job: The job. It may have left the queue already.
        """
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            job.dropped = True
            job.windows.clear()
            if not job.filling:
                job.close()
            self._refill()

    def take(self) -> Work | None:
        """Wait for work, in the thread of the worker.

        Returns:
            The work, or None once the queue is closed.
        """
        with self._changed:
            while not self._closed:
                finished = [job for job in self._jobs if job.ended and not job.windows]
                waiting = [job for job in self._jobs if job.windows]
                if finished or waiting:
                    self._jobs = [job for job in self._jobs if job not in finished]
                    work = Work(self._batch(waiting) if waiting else [], finished)
                    self._refill()
                    return work
                self._changed.wait()
        return None

    def _batch(self, waiting: list[Job]) -> list[tuple[Job, Window]]:
        new, old = [job for job in waiting if not job.served], [job for job in waiting if job.served]
        turns = old + new if self._new_was_first and old else new + old
        self._new_was_first = not turns[0].served
        alike = [job for job in turns if hotwords_of(job) == hotwords_of(turns[0])]
        counts = choose([[window_seconds(window) for window in job.windows] for job in alike], self.batch_seconds)
        batch = [(job, job.windows.popleft()) for job, count in zip(alike, counts) for _ in range(count)]
        served = [job for job, count in zip(alike, counts) if count]
        for job in served:
            job.served = True
        self._jobs = [job for job in self._jobs if job not in served] + served
        return batch

    def waiting_seconds(self) -> float:
        """Return the seconds of audio that were read and wait."""
        with self._changed:
            return sum(job.buffered for job in self._jobs)

    def abandon(self, error: Exception) -> None:
        """Fail all jobs, because nobody takes work any more.

        Args:
            error: The event that they get.
        """
        with self._changed:
            jobs = list(self._jobs)
            self.close()
        for job in jobs:
            self.drop(job)
            job.post(error)

    def close(self) -> None:
        """End the threads. Jobs that are left get no further event."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _refill(self) -> None:
        """Let threads read ahead for jobs with little audio in the queue. The lock is held."""
        share = self._share()
        for job in sorted(self._jobs, key=lambda job: job.served):  # new ones first
            if not (job.filling or job.ended or self._closed) and job.buffered < share:
                job.filling = True
                self._readers.submit(self._fill, job)

    def _share(self) -> float:
        """Return the seconds that may wait per job, so that memory is bounded. One window may always wait."""
        return min(self.batch_seconds, AHEAD * self.batch_seconds / max(len(self._jobs), 1))

    def _fill(self, job: Job) -> None:
        """Read one window, so that the threads serve all jobs in turn."""
        try:
            window = None if job.dropped else job.next_window()
            with self._changed:
                job.ended = window is None
                if window is not None and not job.dropped:
                    job.windows.append(window)
        except Exception as error:  # any: a decoder of audio may fail in many ways
            if not job.dropped:
                job.post(error)
            self.drop(job)
        finally:
            with self._changed:
                job.filling = False
                if job.dropped or job.ended:
                    job.close()
                self._refill()
                self._changed.notify_all()


def hotwords_of(job: Job) -> tuple[tuple[str, ...], float]:
    """Return what must be equal in one batch.

    Args:
        job: A job.

    Returns:
        Its hotwords and their weight.
    """
    return job.settings.hotwords, job.settings.hotword_weight
