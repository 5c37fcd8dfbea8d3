"""Runs with dropout: rollouts and dev clips without it, exact resume, and a final model without it."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics
from safetensors.torch import load_file
from training_runs import cost_free, train_until

from arkasr.distill import step as opd_step
from arkasr.distill.rollout import roll_out
from arkasr.model.dropout import drops_audio
from arkasr.training.train import train

SIX = ["train.steps=6", "train.save_every=3", "train.eval_every=3", "model.dropout=0.4"]
pytestmark = pytest.mark.slow


def words(trained, run):
    paths = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    return paths if run == "base_opd" else paths[:1]


@pytest.mark.parametrize(
    ("run", "more"),
    [("base", ["fsdp.activation_checkpointing=blocks"]), ("base_opd", ["rollout.temperature=1.0"])],
)
def test_resumed_run_is_bitwise_equal_to_uninterrupted_run(conf, trained, datadir, tmp_path, monkeypatch, run, more):
    changes = [*SIX, *words(trained, run), *more]
    arguments = [[str(conf), run, str(tmp_path / name), str(datadir), changes] for name in ("whole", "cut")]
    train(*arguments[0])
    train_until(monkeypatch, 5, *arguments[1])
    torch.manual_seed(99)
    train(*arguments[1])
    folders = [tmp_path / name / run for name in ("whole", "cut")]
    weights = [load_file(folder / "final" / "model.safetensors") for folder in folders]
    start = load_file(trained / "base" / "final" / "model.safetensors")
    assert weights[0].keys() == weights[1].keys() == start.keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert cost_free(metrics(folders[0])) == cost_free(metrics(folders[1]))


@pytest.mark.parametrize(
    "changes", [["model.dropout=0.5"], ["model.lora={rank: 2, encoder: true, dropout: 0.5}"]], ids=["blocks", "lora"]
)
def test_rollouts_are_those_of_the_model_without_dropout(conf, trained, datadir, tmp_path, monkeypatch, changes):
    rollouts = []

    def noted(*arguments, **options):
        rollouts.append(roll_out(*arguments, **options))
        return rollouts[-1]

    monkeypatch.setattr(opd_step, "roll_out", noted)
    part, rows = clips(datadir / "train.jsonl.gz", [0, 1, 2]), []
    for folder, own in (("plain", []), ("dropped", changes)):
        trainer = make_trainer(conf, "base_opd", tmp_path / folder, datadir, *words(trained, "base_opd"), *own)
        rows.append(trainer.take_step(iter([part])))
    plain, dropped = rollouts
    assert plain.generation.ids == dropped.generation.ids
    assert torch.equal(plain.generation.topk, dropped.generation.topk)
    assert all(map(torch.equal, plain.audio, dropped.audio)) and not any(a.requires_grad for a in dropped.audio)
    assert drops_audio(trainer.student)  # on again after the step
    if changes[0].startswith("model.dropout"):  # fresh adapters add 0, with any dropout
        assert rows[0]["loss"] != rows[1]["loss"]


def test_dev_error_is_that_of_the_model_without_dropout(conf, trained, datadir, tmp_path):
    from arkasr.training.dev_error import DevError

    found = []
    for folder, own in (("plain", []), ("dropped", ["model.dropout=0.9"])):
        changes = [f"model.path={trained}/base/final", "train.eval_clips=4", *own]
        trainer = make_trainer(conf, "base", tmp_path / folder, datadir, *changes)
        dev = DevError(trainer.config, trainer.ranks, trainer.phases)
        found.append((dev.measure(trainer.student), dev.sets[0].transcripts))
    assert found[0] == found[1]
