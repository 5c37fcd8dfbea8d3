"""Some faults on real processes. `python tests/faults/faults.py --out DIR` runs all of them."""

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

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bench(conf, datadir, tmp_path_factory) -> Bench:
    """A bench with one process, after the undisturbed run."""
    prepared = Bench(conf, datadir, tmp_path_factory.mktemp("faults"), 1, 1, 3, steps=20)
    prepared.undisturbed()
    return prepared


def test_killed_run_resumes_and_ends_with_equal_weights(bench):
    row = kills.killed(bench, moments=("save",))
    assert row["ok"] and row["equal"] and row["moments"] == 1, row
    assert row["lost_max"] <= 8, row  # at least one save every 4 steps, of which the last may be incomplete


def test_second_run_in_directory_is_refused_and_first_continues(bench):
    row = directories.twice(bench)
    assert row["ok"] and row["status"] == 2, row


def test_full_disk_is_reported_in_one_line_and_run_resumes(bench):
    row = disks.full_in_save(bench)
    if "skipped" in row:
        pytest.skip(f"cannot mount a small file system: {row['skipped']}")
    assert row["ok"] and row["equal"] and row["kept"] >= 1, row


def test_signal_to_all_processes_saves_and_exits_with_0(bench):
    run = bench.run(save_every=100)
    stop = stops.ask(run, "group", signal.SIGTERM)
    assert (stop["status"], stop["lost"]) == (0, 0) and run.saved() > 0, stop


def test_table_shows_unexpected_outcomes():
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
