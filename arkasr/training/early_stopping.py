"""Early stopping: a run ends once its dev error rate has not fallen for some measurements (`train.patience`)."""

from __future__ import annotations

import math
from typing import Any


class EarlyStopping:
    """Counts dev error rates in a row that are not below the lowest one before them.

    All ranks add the same rates and therefore decide alike.

    Args:
        patience: How many of them end the run (`train.patience`). 0 never ends it.

    Attributes:
        lowest: The lowest rate so far, infinite before the first one.
        waited: Rates since then.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.lowest, self.waited = math.inf, 0

    def add(self, dev_error: float | None) -> None:
        """Count one measurement.

        Args:
            dev_error: The dev error rate. None, where no reference word was read, does not count.
        """
        if dev_error is None:
            return
        self.waited = 0 if dev_error < self.lowest else self.waited + 1
        self.lowest = min(self.lowest, dev_error)

    @property
    def reached(self) -> bool:
        """Whether the run ends."""
        return 0 < self.patience <= self.waited

    @property
    def reason(self) -> str:
        """Why the run ends, for the log."""
        return (
            f"the dev error rate has not fallen below {100 * self.lowest:.1f} % in {self.waited} measurements "
            "(train.patience)"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {"lowest": self.lowest if math.isfinite(self.lowest) else None, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts.

        Args:
            state: Return value of `state_dict`. Checkpoints of earlier versions have none, so the counts begin again.
        """
        lowest = state.get("lowest")
        self.lowest, self.waited = math.inf if lowest is None else lowest, state.get("waited", 0)
