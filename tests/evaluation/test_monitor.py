"""Hang detection: a rank without progress, and a silent rank, end the process with a sentence."""

from __future__ import annotations

import json
import threading

import pytest
import torch.distributed as dist

from arkasr.evaluation import monitor as module
from arkasr.evaluation.monitor import HANG_STATUS, Monitor


@pytest.fixture
def ended(monkeypatch):
    """Collect what would end the process. The first end stops the thread."""
    found, event = [], threading.Event()

    def end(status, message, verb):
        found.append((status, message, verb))
        event.set()
        raise RuntimeError("ended")

    monkeypatch.setattr(module, "end_process", end)
    monkeypatch.setattr(module, "LONGEST_INTERVAL", 0.05)
    found.append(event)
    return found


def test_rank_without_progress_ends(ended):
    monitor = Monitor(dist.HashStore(), 0, 1, "label")
    monitor.start()
    with monitor.watching(0.3):
        assert ended[0].wait(60)
    monitor.stop()
    status, message, verb = ended[1]
    assert (status, verb) == (HANG_STATUS, "label") and message.startswith(
        "no progress for 0.3 s; check that the teacher"
    )


def test_progress_and_the_end_of_watching_keep_the_process(ended):
    monitor = Monitor(dist.HashStore(), 0, 1, "label")
    monitor.start()
    with monitor.watching(1.0):
        for _ in range(20):
            monitor.progress += 1
            assert not ended[0].wait(0.1)
    assert not ended[0].wait(1.5)
    monitor.stop()
    assert len(ended) == 1


@pytest.mark.parametrize("beats", [True, False])
def test_rank_0_notices_a_silent_rank(ended, beats):
    store = dist.HashStore()
    if beats:
        store.set("beat/1", json.dumps([7, "node1"]))
    monitor = Monitor(store, 0, 2, "decode")
    monitor.start()
    with monitor.watching(0.5):
        while not ended[0].wait(0.05):
            monitor.progress += 1
    monitor.stop()
    where = "node1" if beats else "an unknown host"
    assert ended[1][1].startswith(f"rank 1 on {where} has been silent for 0.5 s; check that host; run the same command")


def test_other_ranks_send_beats_and_watch_only_themselves(ended):
    store = dist.HashStore()
    monitor = Monitor(store, 1, 3, "decode")
    monitor.start()
    with monitor.watching(0.4):
        for _ in range(15):
            monitor.progress += 1
            assert not ended[0].wait(0.05)
    monitor.stop()
    assert json.loads(store.get("beat/1"))[0] > 3
