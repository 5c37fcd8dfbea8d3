"""Parts that are frozen in the first steps: weights, moments, weight decay, exact resume, and sharded models."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics
from safetensors.torch import load_file
from training_runs import cost_free, train_until

from arkasr.model.checkpoint_files import load_checkpoint
from arkasr.training.train import train

ENCODER = "train.frozen_steps={encoder: 3}"
SIX = ["train.steps=6", "train.save_every=2", "train.eval_every=3", "train.keep=9", "optim.weight_decay=5"]


def encoder(trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.student.hf.model.audio_tower.parameters()]


def encoder_matrices(lm) -> list[torch.Tensor]:
    return [p.detach() for name, p in lm.hf.model.audio_tower.named_parameters() if name.endswith("q_proj.weight")]


def test_frozen_part_keeps_weights_and_moments_and_is_trained_afterwards_as_if_it_were_new(conf, datadir, tmp_path):
    """The reference freezes the encoder by `model.freeze`, and then trains all with a new optimizer of the encoder."""
    parts = [clips(datadir / "train.jsonl.gz", [i, i + 1]) for i in range(5)]
    changes = [*SIX, "optim.warmup_steps=0", "optim.schedule=constant"]
    trainer = make_trainer(conf, "base", tmp_path / "own", datadir, *changes, ENCODER)
    start, norms = encoder(trainer), []
    for part in parts[:3]:
        norms.append(trainer.take_step(iter([part]))["gradient_norm"])
        trainer.step += 1
    assert all(map(torch.equal, start, encoder(trainer)))  # also with weight decay
    assert not any(p in trainer.optimizer.state for p in trainer.student.hf.model.audio_tower.parameters())
    reference = make_trainer(conf, "base", tmp_path / "reference", datadir, *changes, "model.freeze=[encoder]")
    for part, norm in zip(parts[:3], norms, strict=True):
        assert reference.take_step(iter([part]))["gradient_norm"] == norm
    tower = reference.student.hf.model.audio_tower.requires_grad_(True)
    group = {**reference.optimizer.param_groups[0], "params": [p for p in tower.parameters() if p.ndim >= 2]}
    bare = {**group, "params": [p for p in tower.parameters() if p.ndim < 2], "weight_decay": 0.0}
    its_optimizer = torch.optim.AdamW([group, bare])
    steps = [reference.optimizer.step, its_optimizer.step]
    reference.optimizer.step = lambda: [step() for step in steps]
    reference.optimizer.zero_grad = lambda **options: reference.student.zero_grad(**options)
    for part in parts[3:]:
        trainer.take_step(iter([part]))
        trainer.step += 1
        reference.take_step(iter([part]))
    assert not any(map(torch.equal, start, encoder(trainer)))
    torch.testing.assert_close(dict(trainer.student.state_dict()), dict(reference.student.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut_at", "more"),  # resumes from a checkpoint before or after the first step of the encoder
    [(4, ["model.lora={rank: 2, encoder: true}"]), (4, []), (6, ["model.lora={rank: 2, encoder: true}"])],
)
def test_resumed_run_is_bitwise_equal_to_uninterrupted_run(conf, trained, datadir, tmp_path, monkeypatch, cut_at, more):
    changes = [*SIX, ENCODER, f"model.path={trained}/base/final", *more]
    arguments = [[str(conf), "base", str(tmp_path / name), str(datadir), changes] for name in ("whole", "cut")]
    train(*arguments[0])
    train_until(monkeypatch, cut_at, *arguments[1])
    train(*arguments[1])
    weights, rows = zip(*((load_file(run / "final" / "model.safetensors"), cost_free(metrics(run)))
                          for run in (tmp_path / "whole" / "base", tmp_path / "cut" / "base")))  # fmt: skip
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items()) and rows[0] == rows[1]
    checkpoints = [tmp_path / "cut" / "base" / "checkpoints" / f"step-{step:08d}" for step in (2, 4)]
    frozen, trained = (encoder_matrices(load_checkpoint(folder)) for folder in checkpoints)
    assert frozen and not any(map(torch.equal, frozen, trained))


@pytest.mark.slow
def test_sharded_model_that_computes_in_bfloat16_trains_the_part_after_its_frozen_steps(conf, datadir, tmp_path):
    changes = [*SIX, "train.frozen_steps={encoder: 4}", "fsdp.compute_dtype=bfloat16"]
    train(str(conf), "base", str(tmp_path / "run"), str(datadir), changes)
    checkpoints = [tmp_path / "run" / "base" / "checkpoints" / f"step-{step:08d}" for step in (2, 4, 6)]
    first, frozen, trained = (encoder_matrices(load_checkpoint(folder)) for folder in checkpoints)
    assert first and all(map(torch.equal, first, frozen)) and not any(map(torch.equal, first, trained))


def test_first_steps_count_fewer_operations_and_the_log_names_the_first_step(conf, datadir, tmp_path, capsys):
    trainer = make_trainer(conf, "base", tmp_path, datadir, *SIX, "train.frozen_steps={encoder: 1}")
    part, counts = clips(datadir / "train.jsonl.gz", [0, 1]), []
    for _ in range(2):
        trainer.take_step(iter([part]))
        trainer.step += 1
        counts.append(trainer.throughput.total)
    assert counts[0] < counts[1] - counts[0]
    assert capsys.readouterr().out.count("the encoder is trained from step 2 on (train.frozen_steps)") == 1


@pytest.mark.slow
def test_part_that_was_never_trained_is_named(conf, datadir, tmp_path, capsys):
    changes = ["train.steps=0", "train.hours=0.0001", "train.frozen_steps={decoder: 50}", "train.eval_every=0"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    steps = len(metrics(tmp_path / "base"))
    expected = f"the decoder was never trained: train.frozen_steps.decoder is 50, and the run has {steps} steps"
    assert f"warning: {expected}" in capsys.readouterr().out
