"""Counts over a whole run and all ranks: clips that could not be read, and transcripts that were cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from arkasr.data.reasons import NO_TEXT, WITHOUT_TEXT, Failure, counts
from arkasr.errors import UserError
from arkasr.training.ranks import Ranks
from arkasr.utils.console import log

MIN_CLIPS = 200  # clips read before the failed share is checked, so that one early failure does not end the run
MIN_ROLLOUTS, MANY_CUT = 500, 0.1  # transcripts and share of cut ones from which on a warning is logged
REPAIR = "repair the audio and run the same command again, or correct the manifest and train in a new --expdir"


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
            failures: The failed clips of the batch.
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
        if self._too_many():
            gathered: Counter[str] = sum(self.ranks.gather(self.kinds), Counter())
            found = counts(gathered)
            kinds = f"; {found}" if found else ""
            advice = WITHOUT_TEXT if set(gathered) == {NO_TEXT} else REPAIR
            raise UserError(
                f"{self.failed / self.tried:.1%} of the clips could not be read ({self._counts()}{kinds}); last "
                f"failure: {self.last_of_all()}; {advice}, or raise data.max_failed_share"
            )

    def allow_checkpoint(self, step: int) -> bool:
        """Return whether a checkpoint may be written, and log if not.

        A run that resumes from a checkpoint keeps its counts. With too many failed clips, it would fail again after
        the audio has been repaired.

        Args:
            step: Number of the step, for the log.

        Returns:
            False if more than `max_share` have failed so far.
        """
        if self._too_many():
            log(f"step {step}: no checkpoint is written, because too many clips could not be read ({self._counts()})")
        return not self._too_many()

    def _too_many(self) -> bool:
        return self.failed > self.max_share * self.tried

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
