"""What keeps one bad batch from spoiling a run: steps that are not taken, and whose clips made a gradient large."""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

from arkasr.config.schema import TrainConfig
from arkasr.errors import UserError
from arkasr.training.metrics_log import drop_rows_after
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log

WINDOW = 100  # norms that the running one is the median of
LEAST = 20  # norms known before any is called a spike


class Guards:
    """Judges every step by its global loss and gradient norm, which all ranks hold alike: so they decide alike.

    skipped: steps of the run that were not taken; in_a_row: of these, the latest without one between that was.
    """

    def __init__(self, folder: Path, ranks: Ranks, settings: TrainConfig):
        self.folder, self.ranks, self.settings = folder, ranks, settings
        self.path = folder / "spikes.jsonl"
        self.skipped = self.in_a_row = 0
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def state_dict(self) -> dict[str, Any]:
        """Return what decides about the steps to come."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "norms": list(self.norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Judge on as the run did when `state_dict` was called."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self.norms = deque(state["norms"], maxlen=WINDOW)

    def forget_after(self, step: int) -> None:
        """Drop the spikes of steps that will be taken again."""
        if self.ranks.first:
            drop_rows_after(self.path, step)

    def allow(self, step: int, loss: float, count: float, norm: float, clips: list[str]) -> bool:
        """Tell whether step `step` may be taken; names the clips (here those of this rank) behind a large gradient.

        loss, count: sums over all ranks; norm: of the whole gradient, before clipping. Raises UserError after
        `train.max_skipped` steps in a row that may not.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        usual = median(self.norms) if len(self.norms) >= LEAST else math.inf
        factor = self.settings.spike_factor
        if not finite or (factor > 0 and norm > factor * usual):
            self._tell(step, loss, norm, usual, clips)
        if finite and count > 0:
            self.norms.append(norm)
            self.in_a_row = 0
            return True
        self._skip(step, "nothing to score on any rank" if finite else f"loss {loss}, gradient norm {norm}")
        return False

    def _tell(self, step: int, loss: float, norm: float, usual: float, clips: list[str]) -> None:
        """Write a row that names the clips of every rank, in rank order."""
        by_rank = self.ranks.gather(clips)
        if not self.ranks.first:
            return
        known = f", {usual:.3g} of late" if math.isfinite(usual) else ""
        log(f"step {step}: gradient norm {norm:.3g}{known}; its {sum(map(len, by_rank))} clips stand in {self.path}")
        numbers = {"gradient_norm": norm, "usual_norm": usual, "loss_sum": loss}
        row = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row, "clips": by_rank}) + "\n")

    def _skip(self, step: int, why: str) -> None:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        log(f"step {step} skipped: {why} ({self.in_a_row} in a row)")
        if self.in_a_row >= self.settings.max_skipped:
            raise UserError(
                f"{self.folder}: {self.in_a_row} steps in a row could not be taken; lower optim.lr, look at the data, "
                f"or, in distillation, at the teacher (unanswered_rate in metrics.jsonl). The last: {why}"
            )


LEAST = 200  # clips tried before their share is judged: one bad clip among the first is no broken corpus


class FailedClips:
    """Counts over all ranks and the whole run; `last` names the clip that failed last on this rank."""

    def __init__(self, largest_share: float, ranks: Ranks):
        self.largest_share, self.ranks = largest_share, ranks
        self.failed, self.tried, self.last = 0.0, 0.0, ""

    def judge(self, failed: float, read: float) -> None:
        """Add the clips of one step, summed over ranks. Raises UserError, on all ranks alike, where too many failed."""
        self.failed, self.tried = self.failed + failed, self.tried + failed + read
        if self.tried < LEAST or self.failed <= self.largest_share * self.tried:
            return
        last = [name for name in self.ranks.gather(self.last) if name]
        raise UserError(
            f"{self.failed / self.tried:.1%} of the clips could not be read ({self.failed:.0f} of {self.tried:.0f}; "
            f"data.max_failed_share={self.largest_share:g}), the last of them {last[-1] if last else 'before a resume'}: "
            "mend the audio or prepare the corpus anew and give the same command again, or raise data.max_failed_share"
        )

    def state_dict(self) -> dict[str, float]:
        """Return the counts, for a checkpoint."""
        return {"failed": self.failed, "tried": self.tried}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Count on from there."""
        self.failed, self.tried = state["failed"], state["tried"]
