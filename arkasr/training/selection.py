"""Which checkpoints the final model is made of: `train.final` and `train.average`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arkasr.config.schema import TrainConfig
from arkasr.training.checkpoint_state import dev_error_of, step_of


@dataclass(frozen=True)
class Selection:
    """The rule that selects checkpoints for the final model.

    Attributes:
        rule: "last" or "best".
        count: Number of checkpoints.
        save_every: Steps between checkpoints. Those that a signal wrote between two of them do not count, so that an
            interrupted run ends with the same model.
    """

    rule: str
    count: int
    save_every: int

    @classmethod
    def of(cls, config: TrainConfig) -> Selection:
        """Return the rule of a run.

        Args:
            config: The section `train` of the configuration.

        Returns:
            The rule.
        """
        return cls(config.final, config.average, config.save_every)

    @property
    def is_present_model(self) -> bool:
        """Whether the final model is that of the last step, which needs no checkpoint."""
        return self.rule == "last" and self.count == 1

    def choose(self, found: Sequence[Path], end: int | None = None) -> list[Path]:
        """Select checkpoints.

        Args:
            found: The complete checkpoints of the run, oldest first.
            end: The last step of a run that has ended. Its checkpoint counts in any case.

        Returns:
            At most `count` of them, oldest first. Of equal dev error rates, the later ones.
        """
        if self.is_present_model:
            return []
        counted = [p for p in found if step_of(p) == end or (self.save_every and not step_of(p) % self.save_every)]
        if self.rule == "best":
            errors = {p: error for p in counted if (error := dev_error_of(p)) is not None}
            counted = sorted(errors, key=lambda p: (-errors[p], step_of(p)))
        return sorted(counted[-self.count :])
