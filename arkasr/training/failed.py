"""Audio that cannot be read: a few clips are left out and counted, too many end the run."""

from __future__ import annotations

from arkasr.interfaces import UserError
from arkasr.training.ranks import Ranks

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
