"""The meeting of the ranks: log lines while some are missing, and one sentence for each way it can fail."""

from __future__ import annotations

import socket

import pytest
import torch.distributed as dist
from forked_ranks import Forked, free_port
from processes import wait_until

from arkasr.training.ranks import Ranks
from arkasr.utils import rendezvous

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]
ADDRESS = "127.0.0.1"


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start some ranks of a run, which wait for the others up to a timeout in seconds."""
    monkeypatch.setattr(rendezvous, "FIRST_NOTE", 0.5)

    def meet(timeout: float) -> None:
        ranks = Ranks(1, timeout)
        print("together", ranks.gather(ranks.rank), flush=True)
        ranks.close()

    def started(ranks, size: int, port: object, timeout: float) -> Forked:
        output = tmp_path / f"ranks-{ranks[0]}"
        return Forked(size, lambda: meet(timeout), output, ranks, MASTER_ADDR=ADDRESS, MASTER_PORT=port)

    return started


def refused(ranks: Forked) -> str:
    """Wait for one rank, which must fail with a sentence. Return what it printed."""
    assert ranks.wait() == [2]
    printed = ranks.output.read_text()
    assert "UserError: " in printed and "Traceback" not in printed
    return printed


def test_first_rank_names_missing_ranks_until_they_arrive(start):
    port = free_port()
    first = start([0], 3, port, 60)
    wait_until(lambda: first.output.is_file() and "waiting at" in first.output.read_text())
    assert f"waiting at {ADDRESS}:{port} for 2 of 3 ranks" in first.output.read_text()
    others = start([1, 2], 3, port, 60)
    others.succeed()
    first.succeed()
    assert first.output.read_text().count("together [0, 1, 2]") == 1
    assert others.output.read_text().count("together [0, 1, 2]") == 2


def test_missing_ranks_are_one_sentence_in_the_end(start):
    port = free_port()
    printed = refused(start([0], 2, port, 2))
    assert f"UserError: waiting at {ADDRESS}:{port} for 1 of 2 ranks after 2 s; start the same command" in printed


def test_other_rank_says_that_it_waits_and_cannot_reach_the_first(start):
    port = free_port()
    printed = refused(start([1], 2, port, 2))
    assert f"rank 1 is waiting for rank 0 at {ADDRESS}:{port}" in printed
    assert f"UserError: rank 1 cannot reach rank 0 at {ADDRESS}:{port} within 2 s" in printed


def test_taken_port_is_one_sentence(start):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        printed = refused(start([0], 2, port, 5))
    assert (
        f"UserError: port {port} of this machine is taken by another process; choose another --master_port" in printed
    )


def test_missing_address_is_one_sentence(start):
    assert f"UserError: rank 0 cannot open its store at {ADDRESS}:" in refused(start([0], 2, "", 5))
