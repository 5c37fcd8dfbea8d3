"""sweep.csv: the numbers of a sweep for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from arkasr.sweeps.results import COSTS
from arkasr.sweeps.table import Numbers, Table

MEASURED = (
    "trainings", "seeds", "rate_percent", "interval_percent", "interval_by_speaker_percent", "sd_seeds",
    "sd_roundings", "lowest", "highest",
)  # fmt: skip
COMPARED = (
    "difference_percent", "interval_percent", "interval_by_speaker_percent", "p_matched_pairs", "p_bootstrap",
    "interval_seeds_percent", "p_seeds", "sd_seeds", "sd_roundings", "seeds_better", "seeds",
)  # fmt: skip


def comma_separated(table: Table, numbers: Numbers) -> str:
    """Write all numbers as CSV: one line per row and test set. Columns of a control begin with its name.

    Args:
        table: The table.
        numbers: Result of `Table.all_numbers`.

    Returns:
        The text of sweep.csv. What is unknown is empty.
    """
    file = io.StringIO()
    controls = table.sweep.file.controls
    header = ["row", "point", "run", "test_set", "metric", *_columns(MEASURED)]
    header += [f"{control}:{column}" for control in controls for column in _columns(COMPARED)]
    header += [*COSTS, *(f"all_{key}" for key in COSTS)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        own, everything = table.cost(row)
        for name, (tested, _) in table.sets.items():
            found = numbers[row.label, name]
            cells: list[Any] = [row.label, row.point.name if row.point else "", row.run, name, tested.metric]
            cells += _cells(found, MEASURED)
            for control in controls:
                cells += _cells(found["against"].get(control) or {}, COMPARED)
            writer.writerow([*cells, *own.values(), *everything.values()])
    return file.getvalue()


def _columns(keys: Sequence[str]) -> list[str]:
    return [name for key in keys for name in ([f"{key}_low", f"{key}_high"] if "interval" in key else [key])]


def _cells(values: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    cells: list[Any] = []
    for key in keys:
        value = values.get(key)
        cells += (value or [None, None]) if "interval" in key else [value]
    return [round(cell, 6) if isinstance(cell, float) else cell for cell in cells]
