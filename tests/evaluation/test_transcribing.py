"""Transcription of batches in one process: its device, and clips that fail."""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch
from corpus_fixture import make_cut
from pid_transcriber import make_transcriber

from arkasr.config.schema import DataConfig
from arkasr.data.reasons import MISSING
from arkasr.errors import UserError
from arkasr.evaluation.transcribing import Transcribing, own_device


def test_clips_that_cannot_be_read_or_transcribed_are_failures(tmp_path):
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5 + 0.1 * i, "one") for i in range(4)]
    os.remove(cuts[0].recording.sources[0].source)
    make = partial(make_transcriber, raises={"clip-3": ValueError("wrong shape")})
    results = list(Transcribing(make, DataConfig(num_workers=0), 60.0, "cpu").results([cuts[:2], cuts[2:]], "a"))
    assert [[row["id"] for row in result.rows] for result in results] == [["clip-1"], ["clip-2"]]
    (unread,), (failed,) = results[0].unread, results[1].failures
    assert (unread.id, unread.kind) == ("clip-0", MISSING)
    assert (failed.id, failed.detail) == ("clip-3", "ValueError: wrong shape")
    assert [result.num_clips for result in results] == [2, 2]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_rank_of_a_machine_has_its_own_gpu(monkeypatch, rank):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    if rank == 2:
        with pytest.raises(UserError, match="--ngpu 3: this machine has 2 GPUs that are visible; use at most 2"):
            own_device()
    else:
        assert own_device() == f"cuda:{rank}" and chosen == [rank]


def test_device_is_the_cpu_without_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device() == "cpu"
