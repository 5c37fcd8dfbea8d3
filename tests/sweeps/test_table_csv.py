"""sweep.csv: one line per row and test set, with named columns."""

from __future__ import annotations

import csv
import io

from sweep_results import write_results

from arkasr.sweeps.table import read_table
from arkasr.sweeps.table_csv import comma_separated


def test_csv_has_a_line_per_row_and_set_and_columns_per_control(conf, datadir, tmp_path):
    table = read_table(write_results(tmp_path, conf, datadir), tmp_path / "exp", datadir)
    numbers = table.all_numbers()
    text = comma_separated(table, numbers)
    rows = {(row["row"], row["test_set"]): row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 4 * 2 and text == comma_separated(table, table.all_numbers())
    found, row = numbers["top_k-2", "test-b"], rows["top_k-2", "test-b"]
    assert (row["point"], row["run"], row["metric"], row["trainings"]) == ("top_k-2", "base_opd", "wer", "2")
    assert float(row["rate_percent"]) == found["rate_percent"]
    assert [float(row[f"interval_percent_{end}"]) for end in ("low", "high")] == found["interval_percent"]
    assert float(row["base:difference_percent"]) == found["against"]["base"]["difference_percent"]
    assert row["top_k-2:difference_percent"] == "" and row["sd_roundings"] == ""
    assert (row["hours"], row["all_hours"]) == ("0.5", "1.0")
