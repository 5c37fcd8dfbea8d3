"""Resuming a run whose checkpoint was written by an optimizer that was not fused."""

from __future__ import annotations

import torch
from corpus_fixture import clips, make_trainer
from torch.optim.lr_scheduler import LambdaLR


def test_checkpoint_of_an_optimizer_that_was_not_fused_continues(conf, datadir, tmp_path):
    older = make_trainer(conf, "base", tmp_path, datadir)
    groups = [{**group, "fused": None} for group in older.optimizer.param_groups]
    older.optimizer = torch.optim.AdamW(groups)
    older.schedule = LambdaLR(older.optimizer, lambda step: 1.0)
    parts = [clips(datadir / "train.jsonl.gz", [i, i + 1]) for i in range(4)]
    for part in parts[:2]:
        older.take_step(iter([part]))
        older.step += 1
    older.save()
    older.checkpoints.wait()
    newer = make_trainer(conf, "base", tmp_path, datadir)
    newer.resume()
    assert newer.step == 2 and all(group["fused"] for group in newer.optimizer.param_groups)
    newer.schedule = LambdaLR(newer.optimizer, lambda step: 1.0)
    for trainer in (older, newer):
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.01
        for part in parts[2:]:
            trainer.take_step(iter([part]))
    assert all(state["step"] == 4 for state in newer.optimizer.state.values())
    torch.testing.assert_close(newer.student.state_dict(), older.student.state_dict(), rtol=1e-4, atol=1e-5)
