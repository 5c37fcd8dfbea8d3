"""Training of tiny models up to a given step, for tests of checkpoints and resuming."""

from __future__ import annotations

import pytest

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


def cost_free(rows: list[dict]) -> list[dict]:
    """Return rows of metrics without times, memory and throughput, which differ between equal runs."""
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "tokens_per", "tera", "mfu"))}
        for row in rows
    ]
