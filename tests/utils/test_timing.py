"""Phases: sums of the host's clock, and sums of events in the queue of a device that works behind the host."""

from __future__ import annotations

import pytest

from arkasr.utils import timing
from arkasr.utils.timing import Phases


class Queue:
    """A device that works through a queue: it reaches an event when the work before it is done.

    Attributes:
        host: Time on the host.
        device: Time at which the device will have done all work so far.
        waits: Number of times the host waited for the device.
    """

    def __init__(self):
        self.host, self.device, self.waits = 0.0, 0.0, 0

    def work(self, seconds, launch=0.001):
        """Put work into the queue, which takes the host `launch` seconds."""
        self.host += launch
        self.device = max(self.host, self.device) + seconds

    def event(self):
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, queue):
        self.queue, self.at = queue, None

    def record(self):
        self.at = self.queue.device = max(self.queue.host, self.queue.device)

    def synchronize(self):
        self.queue.waits += self.at > self.queue.host
        self.queue.host = max(self.queue.host, self.at)

    def elapsed_time(self, end):
        assert self.queue.host >= end.at, "the device has not reached the event"
        return 1000 * (end.at - self.at)


def test_phases_of_a_device_are_timed_by_its_queue_and_wait_once():
    queue = Queue()
    phases = Phases("cuda:0", queue.event)
    with phases("step"):
        for _ in range(2):
            with phases("rollout"):
                queue.work(1.0)
            with phases("backward"):
                queue.work(0.5)
        assert queue.host == pytest.approx(0.004) and queue.waits == 0  # the host is far ahead of the device
        taken = phases.take()
        assert queue.waits == 1
        assert taken == pytest.approx({"time/rollout": 2.0, "time/backward": 1.0, "time/step": 3.0}, abs=0.01)
        with phases("optimizer"):
            queue.work(0.25)
    assert phases.take() == pytest.approx({"time/optimizer": 0.25, "time/step": 0.25}, abs=0.01)
    assert phases.take() == {}


def test_phase_in_which_the_device_waits_for_the_host_has_the_time_of_the_host():
    queue = Queue()
    phases = Phases("cuda:0", queue.event)
    with phases("data"):
        queue.host += 2.0
    with phases("student"):
        queue.work(0.5)
    assert phases.take() == pytest.approx({"time/data": 2.0, "time/student": 0.5}, abs=0.01)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_failed_and_nested_phases_are_closed(device, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: queue.host)
    phases = Phases(device, queue.event if device != "cpu" else None)
    with pytest.raises(KeyError), phases("teacher"):
        queue.host += 1.0
        with phases("inner"):
            assert phases.current == "inner"
            queue.host += 2.0
            raise KeyError
    assert (phases.current, phases.entered) == ("", 2)
    phases.advance()
    assert phases.entered == 3
    assert phases.take() == pytest.approx({"time/teacher": 3.0, "time/inner": 2.0})


def test_open_phase_is_taken_up_to_now_on_a_cpu(monkeypatch):
    queue = Queue()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: queue.host)
    phases = Phases()
    with phases("step"):
        queue.host = 2.0
        assert phases.take() == {"time/step": 2.0}
        queue.host = 5.0
    assert phases.take() == {"time/step": 3.0} and queue.waits == 0
