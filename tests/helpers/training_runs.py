"""Training of tiny models up to a given step, for tests of checkpoints and resuming."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from arkasr.training.dev_error import DevError
from arkasr.training.train import Trainer, train


class Killed(BaseException):
    """Simulates a kill: no code of arkasr catches it."""


def train_until(monkeypatch, step: int, *arguments) -> None:
    """Call `train` and interrupt it before optimizer step `step`."""
    take_step = Trainer.take_step

    def interrupted(self, batches):
        if self.step + 1 == step:
            raise Killed
        return take_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", interrupted)
        with pytest.raises(Killed):
            train(*arguments)


def script_dev_errors(monkeypatch, rates: Sequence[float | None]) -> None:
    """Replace the dev error rates of all runs: the first one is that of steps 1 and 2, the second that of 3 and 4."""
    run, measuring = Trainer.run, []

    def noting(self):
        measuring[:] = [self]
        return run(self)

    def measure(self, student):
        rate = rates[(measuring[0].step + 1) // 2 - 1]
        return ({} if rate is None else {"dev_error": rate}), ""

    monkeypatch.setattr(Trainer, "run", noting)
    monkeypatch.setattr(DevError, "measure", measure)


def cost_free(rows: list[dict]) -> list[dict]:
    """Return rows of metrics without times, memory and throughput, which differ between equal runs."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "tokens_per", "tera", "mfu"))}
        for row in rows
    ]
