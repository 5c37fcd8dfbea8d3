"""Rows of the table that `gpu.py` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gpu_trace import Trace

NOT_RUN = "not run: time"
FAULTS = ("DIFFERS", "FAILED")  # beginnings of results that make the exit code 1
HEADER = [
    "section",
    "measured",
    "value",
    "unit",
    "ratio",
    "of limit",
    "peak GiB",
    "busy",
    "launches",
    "syncs",
    "result",
]


@dataclass
class Row:
    """One measurement. None means that it was not measured.

    Attributes:
        section: Name of the section.
        name: What was measured.
        value: The measured value, in `unit`.
        unit: Unit of `value`.
        ratio: Time of the section's baseline divided by the time of this row.
        limit: Share of the hardware's limit that was reached, from 0 to 1.
        memory: Peak memory in bytes above the memory in use before.
        busy: Share of the time in which the device was busy.
        launches: Kernels and CUDA graphs that the host launched.
        syncs: Calls by which the host waited for the device.
        result: Result of a check, or a remark.
    """

    section: str
    name: str
    value: float | None = None
    unit: str = ""
    ratio: float | None = None
    limit: float | None = None
    memory: float | None = None
    busy: float | None = None
    launches: int | None = None
    syncs: int | None = None
    result: str = ""

    def add(self, found: Trace, seconds: float, graphs: bool = False) -> None:
        """Add the columns that come from a trace.

        Args:
            found: The trace.
            seconds: Time of the same work without the profiler.
            graphs: Whether the work must launch CUDA graphs. It fails if it launched none.
        """
        self.busy, self.launches, self.syncs = found.busy / seconds, found.launches, found.syncs
        if graphs and not found.graphs:
            self.result = f"FAILED: no CUDA graph was launched; {self.result}"

    @property
    def faulty(self) -> bool:
        """Whether two paths differ, or the section failed."""
        return self.result.startswith(FAULTS)

    def cells(self) -> list[str]:
        """Return the texts of the columns. Those without a measurement are "-"."""
        optional = (
            ("{:.4g}", self.value),
            ("{}", self.unit or None),
            ("{:.2f}", self.ratio),
            ("{:.0%}", self.limit),
            ("{:.2f}", None if self.memory is None else self.memory / 2**30),
            ("{:.0%}", self.busy),
            ("{:,}", self.launches),
            ("{:,}", self.syncs),
            ("{}", self.result or None),
        )
        return [self.section, self.name, *("-" if value is None else form.format(value) for form, value in optional)]


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table.

    Args:
        rows: Its rows.
    """
    cells = [HEADER, ["---", "---", *["---:"] * 8, "---"], *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def exit_code(rows: Sequence[Row]) -> int:
    """Return the exit code of the benchmark.

    Args:
        rows: All rows.

    Returns:
        1 if two paths differ or a section failed, otherwise 3 if a section was not run, otherwise 0.
    """
    if any(row.faulty for row in rows):
        return 1
    return 3 if any(row.result == NOT_RUN for row in rows) else 0


def write_json(path: str, facts: dict[str, str], rows: Sequence[Row]) -> None:
    """Write the results for programs.

    Args:
        path: The file.
        facts: Environment and conditions.
        rows: The rows of the table.
    """
    text = json.dumps({"facts": facts, "rows": [asdict(row) for row in rows]}, indent=1)
    Path(path).write_text(text + "\n", encoding="utf-8")
