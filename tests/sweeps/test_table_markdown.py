"""SWEEP.md: rows, rows that were not run, and costs in readable units."""

from __future__ import annotations

import json

import pytest
from sweep_results import ONCE, TEXT, write_results
from sweeps import write_sweep

from arkasr.sweeps.sweep_file import read_sweep
from arkasr.sweeps.table import read_table
from arkasr.sweeps.table_markdown import markdown


def text_of(conf, datadir, tmp_path, text=TEXT):
    table = read_table(write_results(tmp_path, conf, datadir, text), tmp_path / "exp", datadir)
    return markdown(table, table.all_numbers(), ["sweep.png"])


def line(text: str, start: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n#")[0]


def test_rows_have_rates_spreads_and_numbers_of_trainings(conf, datadir, tmp_path):
    text = text_of(conf, datadir, tmp_path)
    assert "Trained once" not in text
    cells = line(section(text, "test-a"), "top_k-2")
    assert cells[4:6] == ["0.00", "-"] and cells[-1] == "2 of 2" and " to " in cells[6]
    assert line(section(text, "test-a"), "top_k-4")[-1] == "1 of 2"
    assert line(section(text, "test-a: difference from base"), "top_k-2")[1].startswith("-")
    assert "- top_k-4 (seed-2): not run" in text and "![sweep](sweep.png)" in text
    assert line(section(text, "Cost"), "top_k-2")[1:5] == ["0.50", "1.0", "2 GFLOP", "1.0"]


def test_run_trained_once_has_one_training_and_a_note(conf, datadir, tmp_path):
    text = text_of(conf, datadir, tmp_path, ONCE)
    assert "- Trained once for all seeds: teacher. " in text
    cells = line(section(text, "test-a"), "teacher")
    assert cells[4:6] == ["-", "-"] and cells[-1] == "1 of 1"
    assert line(section(text, "test-a: difference from teacher"), "top_k-2")[-1] == "0 of 2"
    assert line(section(text, "test-a: difference from base"), "teacher")[-1] == "2 of 2"
    (tmp_path / "exp/once/teacher/final/config.json").unlink()
    table = read_table(read_sweep(write_sweep(tmp_path, conf, ONCE)), tmp_path / "exp", datadir)
    assert "- teacher (once): not run" in markdown(table, table.all_numbers(), [])


def test_skipped_rows_are_not_run(conf, datadir, tmp_path):
    text = text_of(conf, datadir, tmp_path, TEXT + "skip: [top_k-4]\n")
    assert line(section(text, "test-a"), "top_k-4")[1] == "not run"
    assert line(section(text, "test-a: difference from base"), "top_k-4")[1] == "not run"
    assert "- top_k-4 (seed-1, seed-2): skipped" in text


def test_support_sizes_are_means_over_seeds_of_the_first_rounding(conf, datadir, tmp_path):
    sweep = write_results(tmp_path, conf, datadir)
    table = read_table(sweep, tmp_path / "exp", datadir)
    assert "VUSS" not in markdown(table, table.all_numbers(), [])
    for seed, sizes in ((1, (40.0, 42.0)), (2, (44.0, 46.0))):
        rows = [{"step": i, "loss": 1.0, "vuss": size, "vuss/decile_0": size - 1} for i, size in enumerate(sizes, 1)]
        path = tmp_path / "exp" / f"seed-{seed}" / "top_k-2/base_opd/metrics.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_table(sweep, tmp_path / "exp", datadir)
    cells = line(section(markdown(table, table.all_numbers(), []), "Support sizes (VUSS)"), "top_k-2")
    assert cells[1:3] == ["43.00 ± 2.83", "42.00 ± 2.83"]  # means 41 and 45: SD sqrt(8)


@pytest.mark.parametrize("key", ["flops", "wall_seconds"])
def test_unknown_cost_is_a_dash(conf, datadir, tmp_path, key):
    sweep = write_results(tmp_path, conf, datadir)
    table = read_table(sweep, tmp_path / "exp", datadir)
    for results in table.results.values():
        for cost in results.costs.values():
            del cost[key]
    cells = line(section(markdown(table, table.all_numbers(), []), "Cost"), "top_k-2")
    assert cells.count("-") == 2
