"""Trainings of tiny models up to a step."""

from __future__ import annotations

import pytest

from arkasr.training.train import Trainer, train


class Killed(BaseException):
    """What no part of the program catches."""


def train_until(monkeypatch, step: int, *arguments) -> None:
    """Train, and be cut off when step `step` would be taken."""
    take_step = Trainer.take_step

    def cut_off(self, batches):
        if self.step + 1 == step:
            raise Killed
        return take_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", cut_off)
        with pytest.raises(Killed):
            train(*arguments)


def cost_free(rows: list[dict]) -> list[dict]:
    return [
        {k: v for k, v in row.items() if not k.startswith(("time/", "memory/", "tokens_per", "tera", "mfu"))}
        for row in rows
    ]
