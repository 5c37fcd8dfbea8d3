"""The order in which work is put on the two streams, recorded by streams that only write down what they are asked."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
from steps import SIZES, opd, trainable
from tiny import batch

from arkasr.distill.side_stream import SideStream, side_stream
from arkasr.utils.timing import Phases


class FakeCuda:
    """Streams that record waits and the stream of each note."""

    def __init__(self):
        self.log, self.current = [], "main"

    def current_stream(self):
        return FakeStream(self, self.current)

    @contextmanager
    def stream(self, stream):
        self.current, before = stream.name, self.current
        try:
            yield
        finally:
            self.current = before

    def note(self, what):
        self.log.append((self.current, what))


class FakeStream:
    def __init__(self, cuda, name):
        self.cuda, self.name = cuda, name

    def wait_stream(self, other):
        self.cuda.log.append((self.name, f"waits for {other.name}"))


def fake() -> tuple[FakeCuda, SideStream]:
    cuda = FakeCuda()
    return cuda, SideStream(FakeStream(cuda, "side"), cuda)


def test_side_waits_for_main_before_and_main_for_side_after():
    cuda, side = fake()
    for _ in range(2):
        with side.beside():
            cuda.note("teacher")
        cuda.note("student")
        side.join()
        cuda.note("loss")
    assert cuda.log == 2 * [
        ("side", "waits for main"),
        ("side", "teacher"),
        ("main", "student"),
        ("main", "waits for side"),
        ("main", "loss"),
    ]


def test_tensors_that_the_side_reads_live_until_join():
    _, side = fake()
    read = torch.ones(3)
    alive = weakref.ref(read)
    with side.beside([read]):
        del read
    gc.collect()
    assert alive() is not None
    side.join()
    gc.collect()
    assert alive() is None


def test_error_on_the_side_returns_to_the_main_stream():
    cuda, side = fake()
    with pytest.raises(KeyError), side.beside():
        raise KeyError
    assert cuda.current == "main"


def test_step_scores_beside_the_second_pass_and_joins_before_the_loss(monkeypatch):
    lm, clips = trainable(), batch(SIZES)
    expected = opd(lm)
    total, count = expected.rescore(lm, expected.collect(lm, clips, Phases()))
    one, (cuda, one_side) = opd(lm), fake()
    one._side = one_side
    score, states, loss = one.teacher.score, lm.transcript_states, one.loss
    monkeypatch.setattr(one.teacher, "score", lambda *a: (cuda.note("teacher"), score(*a))[1])
    monkeypatch.setattr(lm, "transcript_states", lambda *a: (cuda.note("student"), states(*a))[1])
    monkeypatch.setattr(one, "loss", lambda *a: (cuda.note("loss"), loss(*a))[1])
    found, found_count = one.rescore(lm, one.collect(lm, clips, Phases()))
    assert [entry for entry in cuda.log if entry != ("side", "student")] == [
        ("side", "waits for main"),
        ("side", "teacher"),
        ("main", "student"),
        ("main", "waits for side"),
        ("main", "loss"),
    ]
    assert torch.equal(found, total) and torch.equal(found_count, count)


def test_all_work_is_in_order_on_a_cpu():
    lm = trainable()
    side = side_stream(opd(lm).teacher, lm)
    assert side._stream is None
    with side.beside(lm):
        pass
    side.join()
    assert side._kept == ()
