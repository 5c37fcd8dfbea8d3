"""Numbers of a whole sweep: rows, differences and costs."""

from __future__ import annotations

import pytest
from sweep_results import ONCE, write_results

from arkasr.sweeps.table import read_table


@pytest.fixture
def table(conf, datadir, tmp_path):
    return read_table(write_results(tmp_path, conf, datadir), tmp_path / "exp", datadir)


def test_differences_pair_seeds(table):
    numbers = table.all_numbers()
    words = sum(tally.lengths.sum() for tally in table.results["top_k-4"].tallies["test-a"].values())
    change = numbers["top_k-4", "test-a"]["against"]["base"]
    assert change["seeds"] == 1 and change["difference_percent"] == pytest.approx(100 * (2 - 6) / words, abs=1e-4)
    change = numbers["top_k-2", "test-a"]["against"]["base"]
    assert change["seeds"] == 2 and change["difference_percent"] == pytest.approx(100 * (8 - 11) / 2 / words, abs=1e-4)
    assert set(numbers["base", "test-a"]["against"]) == {"top_k-2"}


def test_run_trained_once_is_compared_with_each_seed(conf, datadir, tmp_path):
    table = read_table(write_results(tmp_path, conf, datadir, ONCE), tmp_path / "exp", datadir)
    numbers = table.all_numbers()
    words = next(iter(table.results["teacher"].tallies["test-a"].values())).lengths.sum()
    assert [row.label for row in table.rows][:2] == ["teacher", "base"]
    teacher, base = numbers["teacher", "test-a"], numbers["base", "test-a"]
    assert (teacher["trainings"], teacher["seeds"], teacher["sd_seeds"]) == (1, 1, None)
    change, reverse = teacher["against"]["base"], base["against"]["teacher"]
    assert change["difference_percent"] == pytest.approx(100 * (1 - (6 + 5) / 2) / words, abs=1e-4)
    assert (change["seeds"], change["seeds_better"], reverse["seeds"], reverse["seeds_better"]) == (2, 2, 2, 0)
    assert change["interval_seeds_percent"] == [-end for end in reversed(reverse["interval_seeds_percent"])]
    assert table.cost(table.rows[0])[0] == table.cost(table.rows[0])[1] == table.cost(table.rows[1])[0]


def test_cost_adds_the_runs_that_a_run_starts_from(table):
    rows = {row.label: row for row in table.rows}
    own, everything = table.cost(rows["top_k-2"])
    assert own == {"hours": 0.5, "tokens": 1000.0, "flops": 2e9, "wall_seconds": 60.0}
    assert everything == {key: 2 * value for key, value in own.items()}  # Base, and not the teacher
    del table.results["base"]
    assert table.cost(rows["top_k-2"])[1] == dict.fromkeys(own)
