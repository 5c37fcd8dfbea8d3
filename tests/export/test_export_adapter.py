"""Exports of a run with LoRA adapters: the merged model, and the adapter alone."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from exported import metadata_of, run_in_new_process
from safetensors.torch import load_file

from arkasr.cli import main
from arkasr.errors import UserError
from arkasr.export.export import export
from arkasr.model.checkpoint_files import load_checkpoint
from arkasr.model.loading import load_speech_lm
from arkasr.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def adapted(conf, trained, datadir, tmp_path_factory):
    """An experiment whose run `base_opd` has adapters, with a checkpoint of another step."""
    expdir = tmp_path_factory.mktemp("adapted")
    for run in ("teacher", "base"):
        shutil.copytree(trained / run, expdir / run)
    words = ["model.lora={rank: 2, alpha: 8}", "optim.lr=0.1", "train.save_every=2", "train.eval_every=0"]
    train(str(conf), "base_opd", str(expdir), str(datadir), words)
    return expdir


def assert_same_weights(one, other):
    for name, weight in one.hf.state_dict().items():
        assert torch.equal(weight, other.hf.state_dict()[name]), name


def test_export_writes_the_merged_model(adapted, datadir, tmp_path):
    export(str(adapted), str(datadir), ["base_opd"], outdir=str(tmp_path / "merged"))
    assert_same_weights(load_speech_lm(str(tmp_path / "merged")), load_speech_lm(str(adapted / "base_opd" / "final")))
    assert "distillation, LoRA of rank 2" in (tmp_path / "merged" / "README.md").read_text()
    assert not list((tmp_path / "merged").glob("adapter*"))


@pytest.mark.parametrize("checkpoint", ["final", "step-00000002"])
def test_export_writes_the_adapter_alone(adapted, datadir, tmp_path, checkpoint, capsys):
    folder = tmp_path / "adapter"
    words = ["--runs", "base_opd", "--checkpoint", checkpoint, "--adapter", "--outdir", str(folder)]
    assert main(["export", "--expdir", str(adapted), "--datadir", str(datadir), *words]) == 0
    assert "needs the local folder" in capsys.readouterr().out
    run = adapted / "base_opd"
    wanted = (
        load_speech_lm(str(run / "final"))
        if checkpoint == "final"
        else load_checkpoint(run / "checkpoints" / checkpoint)
    )
    assert_same_weights(load_speech_lm(str(folder)), wanted)
    assert metadata_of(folder)["library_name"] == "peft"
    record = json.loads((folder / "training_run.json").read_text())
    assert record["layout"] == "adapter" and set(record["files"]) == {p.name for p in folder.iterdir()}
    weights = load_file(folder / "adapter_model.safetensors")
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in weights if ".layers." in name} == {
        "lora_A",
        "lora_B",
    }


def test_code_in_the_model_card_loads_the_adapter(adapted, datadir, tmp_path):
    export(str(adapted), str(datadir), ["base_opd"], outdir=str(tmp_path / "adapter"), adapter=True)
    code = (tmp_path / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    printed = run_in_new_process(code + "\nprint(model.peft_config['default'].r)\n", tmp_path / "adapter")
    assert printed.split() == ["2"]


def test_a_run_without_adapters_and_both_layouts_are_refused(adapted, datadir, tmp_path):
    with pytest.raises(UserError, match=r"base/final: no LoRA adapter \(model.lora.rank is 0\)"):
        export(str(adapted), str(datadir), ["base"], outdir=str(tmp_path / "none"), adapter=True)
    assert os.listdir(tmp_path) in ([], ["writing-none"])
    with pytest.raises(UserError, match="--published and --adapter exclude each other"):
        export(str(adapted), str(datadir), ["base_opd"], published=True, adapter=True)
