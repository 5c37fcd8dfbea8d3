"""A few of the faults of tests/faults on real processes; `python tests/faults/faults.py --out DIR` tries them all."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import directories
import disks
import kills
import stops
from fault_bench import Bench
from faults import table


@pytest.fixture(scope="module")
def bench(conf, datadir, tmp_path_factory) -> Bench:
    """One process, and what its run comes to in peace."""
    made = Bench(conf, datadir, tmp_path_factory.mktemp("faults"), 1, 1, 3, steps=20)
    made.undisturbed()
    return made


def test_a_killed_run_is_carried_on_at_once_and_ends_as_if_nothing_had_happened(bench):
    row = kills.killed(bench, moments=("save",))
    assert row["ok"] and row["equal"] and row["moments"] == 1, row
    assert row["lost_max"] <= 8, row  # a save each fourth step at the most seldom, of which one may be in the making


def test_a_second_run_in_the_directory_is_refused_and_the_first_unharmed(bench):
    row = directories.twice(bench)
    assert row["ok"] and row["status"] == 2, row


def test_a_full_disk_is_said_in_a_sentence_and_what_was_saved_is_carried_on(bench):
    row = disks.full_in_save(bench)
    if "skipped" in row:
        pytest.skip(f"no small file system can be mounted here: {row['skipped']}")
    assert row["ok"] and row["equal"] and row["kept"] >= 1, row


def test_a_signal_to_the_loader_processes_too_saves_and_ends_well(bench):
    run = bench.run(save_every=100)
    stop = stops.ask(run, "group", signal.SIGTERM)
    assert (stop["status"], stop["lost"]) == (0, 0) and run.saved() > 0, stop


def test_the_table_says_what_was_not_as_it_must_be():
    good = {
        "fault": "kill -9",
        "ranks": 2,
        "moments": 3,
        "during": {"a save": 2},
        "lost_max": 4,
        "equal": True,
        "ok": True,
    }
    text = table([good, good | {"equal": False, "ok": False}, {"fault": "disk full", "ranks": 1, "skipped": "no root"}])
    assert "| kill -9 | 2 | 3 | 2 in a save | 4 | yes | - | - | - | yes |" in text
    assert "| NO | - | - | - | NO |" in text and "skipped: no root" in text
