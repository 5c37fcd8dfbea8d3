"""Checks that protect training: non-finite gradients, gradient spikes, unreadable clips, and cut transcripts."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from arkasr.config.schema import TrainConfig
from arkasr.data.reasons import Failure, counts
from arkasr.errors import UserError
from arkasr.training.metrics_log import drop_rows_after
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log

WINDOW = 100  # number of gradient norms in the running median
MIN_NORMS = 20  # norms known before a spike can be detected
MIN_CLIPS = 200  # clips read before the failed share is checked, so that one early failure does not end the run
MIN_ROLLOUTS, MANY_CUT = 500, 0.1  # transcripts and share of cut ones from which on a warning is logged
REPAIR = "repair the audio or correct its paths, and run the same command again"
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


class FailedClips:
    """Count the clips that could not be read, over all ranks and the whole run.

    Args:
        max_share: Largest share of failed clips that is allowed (`data.max_failed_share`).
        ranks: The processes of the run.

    Attributes:
        failed: Number of failed clips.
        tried: Number of clips, failed ones included.
        last: Description of the clip that failed last on this rank, empty if none failed.
        kinds: Failed clips of this rank by kind of reason, since the start of this process.
    """

    def __init__(self, max_share: float, ranks: Ranks):
        self.max_share, self.ranks = max_share, ranks
        self.failed, self.tried, self.last = 0.0, 0.0, ""
        self.kinds = Counter[str]()

    def note(self, failures: Sequence[Failure]) -> None:
        """Remember why clips of this rank failed, for messages.

        Args:
            failures: The failed clips of a batch.
        """
        self.kinds.update(failure.kind for failure in failures)
        self.last = str(failures[-1]) if failures else self.last

    def add(self, failed: float, read: float) -> None:
        """Add the counts of one step and, from `MIN_CLIPS` clips on, check the share of failed clips.

        Args:
            failed: Clips of the step that could not be read, summed over ranks.
            read: Clips of the step that were read, summed over ranks.

        Raises:
            UserError: Too many have failed. All ranks raise it.
        """
        self.failed, self.tried = self.failed + failed, self.tried + failed + read
        if self.tried >= MIN_CLIPS:
            self.check()

    def check(self) -> None:
        """Check the share of failed clips. After the last step, this holds for any number of clips.

        Raises:
            UserError: More than `max_share` have failed. All ranks raise it.
        """
        if self.failed > self.max_share * self.tried:
            found = counts(sum(self.ranks.gather(self.kinds), Counter()))
            kinds = f"; {found}" if found else ""
            raise UserError(
                f"{self.failed / self.tried:.1%} of the clips could not be read ({self._counts()}{kinds}); last "
                f"failure: {self.last_of_all()}; {REPAIR}, or raise data.max_failed_share"
            )

    def _counts(self) -> str:
        return f"{self.failed:.0f} of {self.tried:.0f}; data.max_failed_share={self.max_share:g}"

    def report(self) -> None:
        """Log the number of failed clips, if there are any."""
        if self.failed:
            log(f"warning: {self.failed / self.tried:.1%} of the clips could not be read ({self._counts()})")

    def last_of_all(self) -> str:
        """Return the description of a clip that failed on any rank. All ranks must call this."""
        last = [name for name in self.ranks.gather(self.last) if name]
        return last[-1] if last else "before a resume"

    def state_dict(self) -> dict[str, float]:
        """Return the counts, for a checkpoint."""
        return {"failed": self.failed, "tried": self.tried}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the counts.

        Args:
            state: Return value of `state_dict`.
        """
        self.failed, self.tried = state["failed"], state["tried"]


class CutRollouts:
    """Count the student's transcripts that reached the token cap, over all ranks and the whole run.

    The end of such a transcript is missing, so the student is not trained to stop there.

    Attributes:
        rolled: Number of transcripts that the student generated.
        cut: Number of them that reached the cap.
    """

    def __init__(self) -> None:
        self.rolled = self.cut = 0.0
        self._warned = False

    def add(self, sums: dict[str, float]) -> None:
        """Add the counts of one step, and warn once if more than `MANY_CUT` of the transcripts were cut.

        Args:
            sums: Values of the step over all ranks. `rolled` and `stopped` are absent without rollouts.
        """
        self.rolled += sums.get("rolled", 0.0)
        self.cut += sums.get("rolled", 0.0) - sums.get("stopped", 0.0)
        if not self._warned and self.rolled >= MIN_ROLLOUTS and self.cut > MANY_CUT * self.rolled:
            self._warned = True
            self.report()

    def report(self) -> None:
        """Log the share of cut transcripts, if there are any."""
        if self.cut:
            log(
                f"warning: {self.cut / self.rolled:.1%} of the student's transcripts so far were cut at the token cap "
                f"({self.cut:.0f} of {self.rolled:.0f}); if the model does not loop, raise rollout.max_new_tokens and "
                "rollout.tokens_per_second"
            )

    def state_dict(self) -> dict[str, float]:
        """Return the counts, for a checkpoint."""
        return {"rolled": self.rolled, "cut": self.cut}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the counts.

        Args:
            state: Return value of `state_dict`. It may be empty, as in checkpoints of earlier versions.
        """
        self.rolled, self.cut = state.get("rolled", 0.0), state.get("cut", 0.0)
