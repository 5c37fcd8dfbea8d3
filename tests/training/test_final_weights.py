"""The final model as the mean of checkpoints: which ones, their mean by an independent reader, and exact resume."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from training_runs import script_dev_errors

from arkasr.model.loading import load_speech_lm
from arkasr.training import final_weights
from arkasr.training.selection import Selection
from arkasr.training.train import Trainer, train

SIX = ["train.steps=6", "train.save_every=2", "train.eval_every=2", "train.keep=1", "train.keep_best=0"]
pytestmark = pytest.mark.slow


def reference_mean(run: Path, *steps: int) -> dict[str, torch.Tensor]:
    """Return the mean weights of checkpoints in float64, read by torch's converter."""
    states = []
    for step in steps:
        whole = run / f"whole-{step}.pt"
        dcp_to_torch_save(run / "checkpoints" / f"step-{step:08d}" / "weights", whole)
        states.append(torch.load(whole)["model"])
    return {name: sum(state[name].double() for state in states) / len(states) for name in states[0]}


def final_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "final" / "model.safetensors")


def assert_mean(run: Path, *steps: int) -> None:
    expected, final = reference_mean(run, *steps), final_of(run)
    for name, value in final.items():
        torch.testing.assert_close(value.double(), expected[f"hf.{name}"], rtol=1e-6, atol=1e-8, msg=name)


def recorded(run: Path) -> list[str]:
    return json.loads((run / "run.json").read_text())["final"]["checkpoints"]


def saved(run: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (run / "checkpoints").iterdir())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# Which checkpoints


@pytest.fixture
def found(tmp_path):
    """Checkpoints of a run that saved every 4 steps, was stopped at step 10, and ended after step 18."""
    errors = {4: 0.5, 8: 0.3, 10: 0.1, 12: 0.3, 16: None, 18: 0.4}
    for step, error in errors.items():
        folder = tmp_path / f"step-{step:08d}"
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"step": step, "dev_error": error}))
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rule", "count", "end", "expected"),
    [
        ("last", 1, 18, []),  # the model itself
        ("last", 3, 18, [12, 16, 18]),
        ("last", 9, 18, [4, 8, 12, 16, 18]),  # not the one that a signal wrote
        ("last", 2, None, [12, 16]),  # while the run goes on
        ("best", 1, 18, [12]),  # of equal ones the later
        ("best", 2, 18, [8, 12]),
        ("best", 3, 18, [8, 12, 18]),
        ("best", 3, None, [4, 8, 12]),
    ],
)
def test_selection_counts_due_checkpoints_and_the_last_one(found, rule, count, end, expected):
    assert [int(path.name[-8:]) for path in Selection(rule, count, 4).choose(found, end)] == expected


# Their mean


@pytest.fixture(scope="module")
def averaged(conf, datadir, tmp_path_factory):
    """A run whose final model is the mean of the last two of three checkpoints."""
    expdir = tmp_path_factory.mktemp("mean")
    train(str(conf), "base", str(expdir), str(datadir), [*SIX, "train.average=2"])
    return expdir / "base"


def test_final_model_is_the_mean_of_the_last_checkpoints(averaged):
    assert saved(averaged) == [4, 6]  # train.keep is 1, but both are needed
    assert recorded(averaged) == ["step-00000004", "step-00000006"]
    assert_mean(averaged, 4, 6)
    last = reference_mean(averaged, 6)
    assert not all(torch.equal(value.double(), last[f"hf.{name}"]) for name, value in final_of(averaged).items())
    load_speech_lm(str(averaged / "final"))


def again(averaged: Path, folder: Path) -> Path:
    """Copy a finished run without its final model, which the next start writes again."""
    shutil.copytree(averaged, folder / "base")
    shutil.rmtree(folder / "base" / "final")
    settings = folder / "base" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(averaged.parent), str(folder)))
    return folder / "base"


def test_lost_final_model_is_written_again_in_groups_of_any_size(averaged, conf, datadir, tmp_path, monkeypatch):
    run = again(averaged, tmp_path)
    monkeypatch.setattr(final_weights, "GROUP", 1000)  # bytes: many groups of one or a few tensors
    train(str(conf), "base", str(tmp_path), str(datadir), [*SIX, "train.average=2"])
    assert same(final_of(run), final_of(averaged))


def test_damaged_checkpoint_is_left_out_and_named(averaged, conf, datadir, tmp_path, capsys):
    run = again(averaged, tmp_path)
    [part] = (run / "checkpoints" / "step-00000004" / "weights").glob("*.distcp")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    train(str(conf), "base", str(tmp_path), str(datadir), [*SIX, "train.average=2"])
    printed = capsys.readouterr().out
    assert "step-00000004: weights/__0_0.distcp was changed" in printed and "left out of the final model" in printed
    assert "final: mean of 1 checkpoints" in printed and recorded(run) == ["step-00000006"]
    assert_mean(run, 6)


def test_run_that_a_signal_stopped_ends_with_the_same_mean(averaged, conf, datadir, tmp_path, monkeypatch):
    take_step = Trainer.take_step

    def stopped(self, batches):
        if self.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return take_step(self, batches)

    arguments = [str(conf), "base", str(tmp_path), str(datadir), [*SIX, "train.average=2"]]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", stopped)
        train(*arguments)
    assert saved(tmp_path / "base") == [2, 4, 5] or saved(tmp_path / "base") == [4, 5]
    train(*arguments)
    assert saved(tmp_path / "base") == [4, 6] and same(final_of(tmp_path / "base"), final_of(averaged))


def test_fewer_checkpoints_than_asked_for_are_averaged_and_logged(conf, datadir, tmp_path, capsys):
    changes = [*SIX, "train.steps=3", "train.average=5"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes[1:])
    assert "final: mean of 2 checkpoints, because the run has no more" in capsys.readouterr().out
    assert_mean(tmp_path / "base", 2, 3)


@pytest.mark.parametrize(("count", "steps"), [(1, [6]), (2, [4, 6])])
def test_final_model_is_the_mean_of_the_checkpoints_with_the_lowest_dev_errors(
    conf, datadir, tmp_path, monkeypatch, count, steps
):
    script_dev_errors(monkeypatch, [0.9, 0.7, 0.7, None, 0.8])
    changes = ["train.steps=10", *SIX[1:], "train.final=best", f"train.average={count}"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    run = tmp_path / "base"
    assert saved(run) == [*steps, 10] and recorded(run) == [f"step-{step:08d}" for step in steps]
    assert_mean(run, *steps)


def test_adapters_are_averaged_before_they_are_merged(conf, trained, datadir, tmp_path):
    changes = [*SIX, "train.average=3", f"model.path={trained}/base/final", "model.lora={rank: 2, encoder: true}"]
    train(str(conf), "base", str(tmp_path), str(datadir), [*changes, "optim.lr=0.1"])
    run = tmp_path / "base"
    expected, found = reference_mean(run, 2, 4, 6), load_file(run / "final" / "adapter" / "adapter_model.safetensors")
    assert saved(run) == [2, 4, 6] and any("lora_B" in name for name in found)
    for name, value in found.items():
        inner = name.removeprefix("base_model.model.").replace("lora_A", "lora_A.default")
        mean = expected[f"hf.{inner.replace('lora_B', 'lora_B.default')}"]
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-8, msg=name)
    merged = load_speech_lm(str(run / "final" / "adapter")).hf.state_dict()  # by PEFT's file and the base
    for name, value in final_of(run).items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6, msg=name)
