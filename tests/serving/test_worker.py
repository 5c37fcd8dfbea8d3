"""The worker: one bad window does not fail the others, and results are assembled in order."""

from __future__ import annotations

import io
import queue as queues
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from processes import wait_until
from scripted_recognizer import BAD, ScriptedRecognizer

from arkasr.errors import UserError
from arkasr.serving.job import Delta, Job
from arkasr.serving.metrics import Metrics
from arkasr.serving.queue import Queue
from arkasr.serving.worker import Worker
from arkasr.transcription.results import Transcription
from arkasr.transcription.settings import Settings

SETTINGS = Settings(segmentation="fixed", window_seconds=4, batch_seconds=40)


@pytest.fixture
def recognizer() -> ScriptedRecognizer:
    return ScriptedRecognizer()


@pytest.fixture
def queue(recognizer) -> Iterator[Queue]:
    queue = Queue(SETTINGS.batch_seconds)
    worker = Worker(recognizer, queue, Metrics())
    recognizer.go.clear()
    worker.start()
    yield queue
    recognizer.go.set()
    queue.close()
    worker._thread.join(10)
    assert not worker.is_alive


def send(queue: Queue, seconds: float, first: float = 0.1, **settings: object) -> queues.SimpleQueue:
    samples = np.full(round(16000 * seconds), 0.1, np.float32)
    samples[0], events, file = first, queues.SimpleQueue(), io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    queue.add(Job(file, "a.wav", Settings(**{**vars(SETTINGS), **settings}), 1000, events.put))
    return events


def last(events: queues.SimpleQueue) -> tuple[str, Transcription | Exception]:
    """Return the parts of the text together, and the last event."""
    text = ""
    while isinstance(event := events.get(timeout=20), Delta):
        text += event.text
    return text, event


def test_windows_that_waited_are_one_batch(queue, recognizer):
    first = send(queue, 1)
    wait_until(lambda: recognizer.batches == [[1.0]])
    others = [send(queue, 1 + i / 10, language="German") for i in range(5)]
    wait_until(lambda: queue.waiting_seconds() == pytest.approx(6.0))
    recognizer.go.set()
    assert last(first)[1].text == "1 s English"
    assert [last(each)[1].text for each in others] == [f"{1 + i / 10:g} s German" for i in range(5)]
    assert [sorted(batch) for batch in recognizer.batches] == [[1.0], [1.0, 1.1, 1.2, 1.3, 1.4]]


def test_parts_of_the_text_are_the_text(queue, recognizer):
    events = send(queue, 30)
    recognizer.go.set()
    text, result = last(events)
    assert text == result.text != "" and len(result.segments) > 5 and result.seconds == 30


def test_a_bad_window_fails_its_request_only(queue, recognizer):
    events = [send(queue, 2), send(queue, 2, first=BAD), send(queue, 2), send(queue, 2)]
    recognizer.go.set()
    results = [last(each)[1] for each in events]
    assert isinstance(results[1], UserError)
    assert [each.text for i, each in enumerate(results) if i != 1] == ["2 s English"] * 3


def test_batches_become_smaller_if_memory_runs_out(queue, recognizer):
    recognizer.most = 2
    events = [send(queue, 2)]
    wait_until(lambda: len(recognizer.batches) == 1)
    events += [send(queue, 2) for _ in range(8)]
    wait_until(lambda: queue.waiting_seconds() == 16)
    recognizer.go.set()
    assert [last(each)[1].text for each in events] == ["2 s English"] * 9
    assert queue.batch_seconds == 4 and [len(batch) for batch in recognizer.batches] == [1, 8, 4, 2, 2, 4, 2, 2]


def test_silence_is_empty_and_is_not_decoded(queue, recognizer):
    samples, events = io.BytesIO(), queues.SimpleQueue()
    soundfile.write(samples, np.zeros(32000, np.float32), 16000, format="WAV")
    queue.add(Job(samples, "a.wav", SETTINGS, 1000, events.put))
    _, result = last(events)
    assert (result.text, result.segments, recognizer.batches) == ("", (), [])
    assert any("silent" in note for note in result.notes)
