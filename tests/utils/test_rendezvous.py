"""The meeting of the ranks: log lines while some are missing, and one sentence for each way it can fail."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]
MEET = """
import sys
from arkasr.errors import UserError
from arkasr.utils import rendezvous
from arkasr.training.ranks import Ranks
rendezvous.FIRST_NOTE = 0.5
try:
    ranks = Ranks(1, float(sys.argv[1]))
    print("together", ranks.gather(ranks.rank), flush=True)
    ranks.close()
except UserError as error:
    print("refused:", error, flush=True)
"""


def rank(number: int, size: int, port: int, timeout: float, **changes: str) -> subprocess.Popen:
    env = os.environ | {"RANK": str(number), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    env |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", MEET, str(timeout)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env | changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_first_rank_names_missing_ranks_until_they_arrive():
    port = free_port()
    first = rank(0, 3, port, 60)
    assert f"waiting at 127.0.0.1:{port} for 2 of 3 ranks" in first.stdout.readline()
    others = [rank(number, 3, port, 60) for number in (1, 2)]
    printed = [process.communicate(timeout=90)[0] for process in (first, *others)]
    assert all("together [0, 1, 2]" in text for text in printed), printed


def test_missing_ranks_are_one_sentence_in_the_end():
    port = free_port()
    printed = rank(0, 2, port, 2).communicate(timeout=90)[0]
    assert f"refused: waiting at 127.0.0.1:{port} for 1 of 2 ranks after 2 s; start the same command" in printed


def test_other_rank_says_that_it_waits_and_cannot_reach_the_first():
    port = free_port()
    printed = rank(1, 2, port, 2).communicate(timeout=90)[0]
    assert f"rank 1 is waiting for rank 0 at 127.0.0.1:{port}" in printed
    assert f"refused: rank 1 cannot reach rank 0 at 127.0.0.1:{port} within 2 s" in printed


def test_taken_port_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        printed = rank(0, 2, port, 5).communicate(timeout=90)[0]
    assert f"refused: port {port} of this machine is taken by another process; choose another --master_port" in printed


def test_missing_address_is_one_sentence():
    printed = rank(0, 2, 1, 5, MASTER_PORT="").communicate(timeout=90)[0]
    assert "refused: rank 0 cannot open its store at 127.0.0.1:" in printed
