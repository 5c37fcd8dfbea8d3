"""The length of a run in steps, epochs or hours of audio, and how much of it is done."""

from __future__ import annotations

import math

from arkasr.config.schema import TrainConfig

ROUNDING = 1e-9  # share of the length by which a sum of hours may miss it


class RunLength:
    """Counts the steps and the audio of a run.

    Hours are those of the clips that were drawn, by the manifest. Clips that could not be read count too, so a run of
    one epoch draws every clip once. With `augment.speeds`, hours count clips as they are read, and epochs at their own
    speed.

    Args:
        config: The section `train`.
        warmup_steps: Steps of warm-up (`optim.warmup_steps`).

    Attributes:
        unit: `steps`, `epochs` or `hours`.
        total: Length of the run in this unit.
        step: Steps taken.
        drawn: Hours of the clips drawn, over all ranks, as they are read.
        covered: The same at their own speed.
        epoch_hours: Hours of one epoch. Needed before the first step of runs whose unit is `epochs`.
    """

    def __init__(self, config: TrainConfig, warmup_steps: int):
        self.unit, self.total = config.length
        self.warmup_steps, self.warm_hours = warmup_steps, 0.0
        self.step, self.drawn, self.covered, self.epoch_hours = 0, 0.0, 0.0, 0.0

    def add(self, hours: float, covered: float | None = None) -> None:
        """Count one step.

        Args:
            hours: Hours of the clips that it drew, over all ranks.
            covered: The same at the clips' own speed. None: as many.
        """
        self.step, self.drawn = self.step + 1, self.drawn + hours
        self.covered += hours if covered is None else covered
        if self.step == self.warmup_steps:
            self.warm_hours = self._hours

    @property
    def epochs(self) -> float:
        """Epochs done, with their fraction."""
        return self.covered / self.epoch_hours if self.epoch_hours else 0.0

    @property
    def share(self) -> float:
        """Share of the run that is done, from 0 to 1."""
        done = self.step if self.unit == "steps" else self._hours
        return min(done / self._end, 1.0)

    @property
    def reached(self) -> bool:
        """Whether the run is as long as it should be."""
        return self.share >= 1 - (0.0 if self.unit == "steps" else ROUNDING)

    @property
    def expected_steps(self) -> int:
        """Steps of the whole run. For other units an estimate from the steps so far, 0 before the first one."""
        if self.unit == "steps" or self.reached:
            return int(self.total) if self.unit == "steps" else self.step
        return math.ceil(self.step / self.share) if self.share else 0

    def after_warmup(self, step: int) -> float:
        """Return the share of the run after the warm-up that is done.

        Args:
            step: Steps taken. Other units than steps use the hours drawn so far.

        Returns:
            From 0 to 1.
        """
        if self.unit == "steps":
            return min((step - self.warmup_steps) / max(self.total - self.warmup_steps, 1), 1.0)
        done, rest = self._hours - self.warm_hours, self._end - self.warm_hours
        return min(done / max(rest, done), 1.0) if done > 0 else 0.0

    @property
    def _hours(self) -> float:
        """The hours that the length of the run counts."""
        return self.covered if self.unit == "epochs" else self.drawn

    @property
    def _end(self) -> float:
        """Length of the run in steps, or in hours."""
        return self.total * self.epoch_hours if self.unit == "epochs" else self.total

    def state_dict(self) -> dict[str, float]:
        """Return the counts, for a checkpoint."""
        names = ("drawn", "covered", "warm_hours", "epoch_hours")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, float], step: int) -> None:
        """Restore the counts.

        Args:
            state: Return value of `state_dict`. Those of earlier versions have no `covered`, which equals `drawn`.
            step: Steps taken.
        """
        self.step = step
        self.drawn, self.warm_hours, self.epoch_hours = (state[k] for k in ("drawn", "warm_hours", "epoch_hours"))
        self.covered = state.get("covered", self.drawn)
