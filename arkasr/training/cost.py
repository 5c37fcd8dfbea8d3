"""What a run has cost, summed over all starts that led to its result: operations, time, audio and tokens."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from arkasr.utils.files import read_json, write_text

KEYS = ("flops", "wall_seconds", "hours", "tokens")  # in run.json of a finished run


class WallTime:
    """Seconds of wall time of one run.

    Attributes:
        before: Seconds of earlier starts, up to the checkpoint that this start continues. None if they are unknown,
            because an earlier version wrote the checkpoint.
    """

    def __init__(self) -> None:
        self.before: float | None = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float | None:
        """Seconds of the run so far, None if those of earlier starts are unknown."""
        return None if self.before is None else self.before + time.monotonic() - self._began


def record_cost(path: Path, cost: dict[str, float | None]) -> None:
    """Write the cost of a finished run into its run.json.

    Args:
        path: The file `run.json`.
        cost: Values of `KEYS`: `flops` of all training steps, `wall_seconds`, `hours` of audio and `tokens`. None is
            unknown.
    """
    again = "restore it, or delete it to resume without a comparison of the inputs"
    record: dict[str, Any] = read_json(path, again) if path.is_file() else {}
    record |= {key: cost[key] for key in KEYS}
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
