"""The queue of the service: turns, memory, and jobs that are dropped or fail."""

from __future__ import annotations

import io
import queue as queues
import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from arkasr.errors import UserError
from arkasr.serving.errors import ApiError
from arkasr.serving.job import Job
from arkasr.serving.queue import AHEAD, Queue
from arkasr.transcription.settings import Settings

SETTINGS = Settings(segmentation="fixed", window_seconds=4, batch_seconds=8)


def wav(seconds: float) -> io.BytesIO:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, int(16000 * seconds))
    soundfile.write(file, samples.astype(np.float32), 16000, format="WAV")
    return file


class Events(queues.SimpleQueue):
    """The events of one job."""

    def next(self):
        return self.get(timeout=10)


def job(seconds: float, max_seconds: float = 1000, **settings: object) -> tuple[Job, Events]:
    events = Events()
    options = Settings(**{**vars(SETTINGS), **settings})
    return Job(wav(seconds), "a.wav", options, max_seconds, events.put), events


@pytest.fixture
def queue() -> Iterator[Queue]:
    queue = Queue(SETTINGS.batch_seconds)
    yield queue
    queue.close()


def filled(queue: Queue, *jobs: Job) -> None:
    """Wait until nothing more is read."""
    with queue._changed:
        assert queue._changed.wait_for(lambda: not any(one.filling for one in jobs), 10)


def test_a_new_job_is_next_after_at_most_one_batch(queue):
    (long, _), (short, _) = job(100), job(1)
    queue.add(long)
    firsts = []
    for batch in range(6):
        if batch == 2:
            queue.add(short)
        filled(queue, long, short)
        firsts.append(queue.take().batch[0][0])
    assert short in firsts[2:4] and firsts.count(long) == 5


def test_a_long_job_ends_although_new_ones_come_all_the_time(queue):
    long, _ = job(40, window_seconds=8)  # each window fills a batch
    queue.add(long)
    for _ in range(16):
        new, _ = job(1)
        queue.add(new)
        filled(queue, long, new)
        if long in queue.take().finished:
            return
    raise AssertionError("the long job has not ended")


def test_windows_of_a_job_keep_their_order_and_none_is_lost(queue):
    one, _ = job(37)
    queue.add(one)
    windows = []
    while not (work := queue.take()).finished:
        windows += [window for _, window in work.batch]
    starts = [window.start for window in windows]
    assert starts == sorted(starts) and windows[-1].end == 37
    assert all(a.end >= b.start for a, b in pairwise(windows))


def test_only_some_audio_is_read_ahead(queue):
    jobs = [job(200)[0] for _ in range(3)]
    for one in jobs:
        queue.add(one)
    filled(queue, *jobs)
    assert all(0 < one.buffered < SETTINGS.batch_seconds + SETTINGS.window_seconds for one in jobs)
    assert queue.waiting_seconds() < AHEAD * SETTINGS.batch_seconds


def test_many_jobs_have_one_window_each(queue):
    jobs = [job(12)[0] for _ in range(2 * AHEAD * 2)]
    with queue._changed:  # nothing is read ahead while there are fewer
        for one in jobs:
            queue.add(one)
    filled(queue, *jobs)
    assert {len(one.windows) for one in jobs} == {1}


def test_a_dropped_job_leaves_nothing(queue):
    (one, events), (other, _) = job(100), job(2)
    queue.add(one)
    filled(queue, one)
    queue.drop(one)
    assert (queue.waiting_seconds(), one._audio.closed, events.empty()) == (0, True, True)
    queue.add(other)
    assert [each for each, _ in queue.take().batch] == [other]


def test_a_job_that_is_dropped_while_it_is_read_is_closed(queue, monkeypatch):
    reading, go = threading.Event(), threading.Event()
    one, events = job(10)
    following = one.next_window

    def slow():
        reading.set()
        assert go.wait(10)
        return following()

    monkeypatch.setattr(one, "next_window", slow)
    queue.add(one)
    assert reading.wait(10)
    queue.drop(one)
    assert not one._audio.closed  # the thread still reads it
    go.set()
    filled(queue, one)
    assert one._audio.closed and not one.windows and events.empty()


def test_audio_that_cannot_be_read_is_an_event(queue):
    events = Events()
    queue.add(Job(io.BytesIO(b"RIFF, or so"), "a.wav", SETTINGS, 9, events.put))
    error = events.next()
    assert isinstance(error, UserError) and str(error).startswith("a.wav: ")


def test_audio_that_is_too_long_is_an_event(queue):
    one, events = job(20, max_seconds=3)
    queue.add(one)
    error = events.next()
    assert isinstance(error, ApiError) and error.status == 413 and "longer than 3 s" in str(error)


def test_jobs_with_other_hotwords_have_batches_of_their_own(queue):
    jobs = [job(1, hotwords=words)[0] for words in [("a",), (), ("a",), ("b",)]]
    for one in jobs:
        queue.add(one)
    filled(queue, *jobs)
    batches = [[one for one, _ in queue.take().batch] for _ in range(3)]
    assert batches == [[jobs[0], jobs[2]], [jobs[1]], [jobs[3]]]


def test_a_closed_queue_ends_the_worker(queue):
    taken = Events()
    thread = threading.Thread(target=lambda: taken.put(queue.take()))
    thread.start()
    queue.close()
    assert taken.next() is None
    thread.join(10)
