"""Checks that protect training: steps with non-finite gradients, steps without data, and gradient spikes."""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

from arkasr.config.schema import TrainConfig
from arkasr.errors import UserError
from arkasr.training.clip_counts import REPAIR, FailedClips
from arkasr.training.metrics_log import drop_rows_after
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log

WINDOW = 100  # number of gradient norms in the running median
MIN_NORMS = 20  # norms known before a spike can be detected
_TEACHER = "in distillation also the teacher (teacher_missing_rate in metrics.jsonl)"


class Guards:
    """Decide for every step whether it is taken, and record gradient spikes in spikes.jsonl.

    Decisions use the global loss and gradient norm. All ranks have the same values and therefore decide alike.

    Args:
        folder: The run's directory.
        ranks: The processes of the run.
        settings: The `train` section of the configuration: `spike_factor` and `max_skipped`.

    Attributes:
        skipped: Number of steps of this run that were not taken.
        in_a_row: Number of steps skipped since the last step that was taken.
        norms: The last `WINDOW` gradient norms of steps that were taken.
    """

    def __init__(self, folder: Path, ranks: Ranks, settings: TrainConfig):
        self.folder, self.ranks, self.settings = folder, ranks, settings
        self.path = folder / "spikes.jsonl"
        self.skipped = self.in_a_row = 0
        self.norms: deque[float] = deque(maxlen=WINDOW)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that decisions depend on, for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "norms": list(self.norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned.

        Args:
            state: Return value of `state_dict`.
        """
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self.norms = deque(state["norms"], maxlen=WINDOW)

    def forget_after(self, step: int) -> None:
        """Drop the recorded spikes of steps that a resumed run takes again.

        Args:
            step: The last step whose spikes are kept.
        """
        if self.ranks.first:
            drop_rows_after(self.path, step)

    def allow(
        self, step: int, loss: float, count: float, norm: float, clips: list[str], unread: FailedClips | None = None
    ) -> bool:
        """Return whether a step may be taken, and record its clips if its gradient is a spike or not finite.

        Args:
            step: Number of the step, counted from 1.
            loss: Loss, summed over all ranks.
            count: Tokens or positions that divide the loss, summed over all ranks.
            norm: Norm of the whole gradient before clipping.
            clips: Ids of this rank's clips.
            unread: The failed clips, if no clip of the step could be read on any rank.

        Returns:
            True if loss and norm are finite and `count` is positive.

        Raises:
            UserError: `train.max_skipped` steps in a row were skipped.
        """
        finite = math.isfinite(loss) and math.isfinite(norm)
        median_norm = median(self.norms) if len(self.norms) >= MIN_NORMS else math.inf
        factor = self.settings.spike_factor
        if not finite or (factor > 0 and norm > factor * median_norm):
            self._record_spike(step, loss, norm, median_norm, clips)
        if finite and count > 0:
            self.norms.append(norm)
            self.in_a_row = 0
            return True
        self._skip(step, loss, norm, finite, unread)
        return False

    def _record_spike(self, step: int, loss: float, norm: float, median_norm: float, clips: list[str]) -> None:
        """Append one row to spikes.jsonl with the clips of every rank, in rank order."""
        by_rank = self.ranks.gather(clips)
        if not self.ranks.first:
            return
        compared = f" (recent median {median_norm:.3g})" if math.isfinite(median_norm) else ""
        num_clips = sum(map(len, by_rank))
        log(f"step {step}: gradient norm {norm:.3g}{compared}; its {num_clips} clips are listed in {self.path}")
        numbers = {"gradient_norm": norm, "median_norm": median_norm, "loss_sum": loss}
        row = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row, "clips": by_rank}) + "\n")

    def _skip(self, step: int, loss: float, norm: float, finite: bool, unread: FailedClips | None) -> None:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        reason = "nothing to score on any rank" if finite else f"loss {loss}, gradient norm {norm}"
        reason = "no clip could be read on any rank" if unread else reason
        log(f"step {step} skipped: {reason} ({self.in_a_row} in a row)")
        if self.in_a_row >= self.settings.max_skipped:
            remedy = f"{'check' if finite else 'lower optim.lr or check'} the data, {_TEACHER}"
            remedy = f"last failure: {unread.last_of_all()}; {REPAIR}" if unread else remedy
            raise UserError(
                f"{self.folder}: {self.in_a_row} steps in a row were skipped (train.max_skipped), the last because of "
                f"{reason}; {remedy}"
            )

    def require_steps(self, steps: int, failed: FailedClips) -> None:
        """Check that a run has trained its model.

        Args:
            steps: Number of steps of the run, skipped ones included.
            failed: The clips that could not be read, to name the cause.

        Raises:
            UserError: Every step was skipped.
        """
        if self.skipped < steps:
            return
        cause = "nothing could be scored, or no gradient was finite"
        remedy = f"check the data and optim.lr, {_TEACHER}"
        if failed.failed == failed.tried:
            cause, remedy = f"no clip could be read (last failure: {failed.last_of_all()})", REPAIR
        raise UserError(
            f"{self.folder}: all {steps} steps were skipped, because {cause}, so nothing was trained; {remedy}"
        )
