"""A single process that computes in bfloat16: FSDP2 casts the weights, as it does with several ranks."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics
from torch.distributed.fsdp import FSDPModule

from arkasr.distill import rollout
from arkasr.model.generation import weights
from arkasr.model.loading import load_speech_lm
from arkasr.training.train import train

BFLOAT16 = "fsdp.compute_dtype=bfloat16"
OPD = ["model.path={}/base/final", "teacher.options.path={}/teacher/final"]


def overrides(trained, *more):
    return [word.format(trained) for word in OPD] + list(more)


def test_masters_are_float32_and_rollouts_bfloat16(conf, trained, datadir, tmp_path, monkeypatch):
    seen, generate = [], rollout.generate

    def watched(lm, prompts, *rest, **options):
        seen.append((prompts[0].dtype, weights.current_weights(lm)))
        return generate(lm, prompts, *rest, **options)

    trainer = make_trainer(conf, "base_opd", tmp_path, datadir, *overrides(trained, BFLOAT16))
    monkeypatch.setattr(rollout, "generate", watched)
    try:
        student, batch = trainer.student, clips(datadir / "train.jsonl.gz", [0, 1, 2])
        row = trainer.take_step(iter([batch, batch]))
        exact = make_trainer(conf, "base_opd", tmp_path / "exact", datadir, *overrides(trained))
        wanted = exact.take_step(iter([batch, batch]))
        assert isinstance(student, FSDPModule) and {p.dtype for p in student.parameters()} == {torch.float32}
        dtype, current = seen[0]
        assert dtype == torch.bfloat16 and current.is_copy and current.dtype == torch.bfloat16
        assert not isinstance(exact.student, FSDPModule) and not seen[-1][1].is_copy
        assert row["loss"] == pytest.approx(wanted["loss"], rel=0.1) and row["loss"] != wanted["loss"]
        assert row["gradient_norm"] == pytest.approx(wanted["gradient_norm"], rel=0.2)
    finally:
        trainer.ranks.close()


@pytest.mark.slow
def test_a_run_can_be_resumed_and_gives_float32_weights(conf, trained, datadir, tmp_path):
    words = overrides(trained, BFLOAT16, "train.eval_every=0", "train.save_every=2")
    train(str(conf), "base_opd", str(tmp_path / "whole"), str(datadir), [*words, "train.steps=4"])
    for steps in (2, 4):
        train(str(conf), "base_opd", str(tmp_path / "parts"), str(datadir), [*words, f"train.steps={steps}"])
    whole, parts = (load_speech_lm(str(tmp_path / name / "base_opd/final")) for name in ("whole", "parts"))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    for name, value in whole.named_parameters():
        assert torch.equal(value, parts.get_parameter(name)), name
    rows = [metrics(tmp_path / name / "base_opd") for name in ("whole", "parts")]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
