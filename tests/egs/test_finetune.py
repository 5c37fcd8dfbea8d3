"""egs/conf/finetune.yaml fits one GPU of 24 GB, and its runs are those of a recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from planned_runs import planned
from safetensors.torch import load_file
from tiny_recipe import FINETUNE

from arkasr.cli import main
from arkasr.config.load import load_config
from arkasr.errors import UserError

CONF = str(Path(__file__).parents[2] / "egs" / "conf" / "finetune.yaml")
GB_24 = 24e9 / 2**30
# An A10: its data sheet's dense bfloat16 throughput and bandwidth.
CARD = {"gpus": 1, "gpu_memory": GB_24, "tflops": 125.0, "bandwidth": 540.0}
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("run", ["base_opd", "base_td", "base_td_opd"])
@pytest.mark.parametrize("seconds", [5.0, 15.0, 29.0])
def test_runs_fit_24_gb_with_clips_of_any_length(run, seconds):
    result = planned(run, conf=CONF, clip_seconds=seconds, hours=20.0, **CARD)
    assert max(result["memory_gib"]["peaks"].values()) + result["assumptions"]["reserved_memory"] < GB_24 - 1
    assert result["proposals"] == [] and result["all"]["epochs"] == pytest.approx(5, rel=0.02)


def test_all_weights_do_not_fit_and_plan_proposes_what_does():
    full = ("model.lora.rank=0", "data.max_seconds=600", "train.accumulate=1")
    result = planned("base_opd", full, CONF, **CARD)
    assert max(result["memory_gib"]["peaks"].values()) > GB_24 and result["proposals"]


def test_base_is_the_checkpoint_itself():
    config = load_config(CONF, "base", "E", "D")
    assert config.objective == "none" and config.model.path == "AutoArk-AI/ARK-ASR-0.6B"
    with pytest.raises(UserError, match="--run base: has `objective: none`, so there is no training to plan"):
        planned("base", conf=CONF, gpus=1)


def test_runs_distil_from_the_teacher_with_adapters():
    for run in ("base_opd", "base_td", "base_td_opd"):
        config = load_config(CONF, run, "E", "D")
        assert config.model.adapted == ("decoder",) and config.teacher.options["path"] == "Qwen/Qwen3-ASR-1.7B-hf"
    assert load_config(CONF, "base_td_opd", "E", "D").model.path == "E/base_td/final"


def test_stages_2_to_6_of_its_runs_with_tiny_models(trained, datadir, tmp_path):
    (tmp_path / "tiny.yaml").write_text(FINETUNE.format(conf=CONF, trained=trained))
    data, expdir = shutil.copytree(datadir, tmp_path / "data"), tmp_path / "exp"
    shutil.copy(data / "base.jsonl.gz", data / "opd.jsonl.gz")
    conf, folders = str(tmp_path / "tiny.yaml"), ["--expdir", str(expdir), "--datadir", str(data)]
    runs = ["base", "base_opd", "base_td", "base_td_opd"]
    commands = [["label", conf, *folders]]
    commands += [["train", conf, "--run", run, *folders] for run in runs]
    commands += [["decode", *folders, "--runs", "teacher", *runs], ["score", *folders, "--runs", "teacher", *runs]]
    commands += [["export", *folders, "--runs", *runs]]
    commands += [["export", *folders, "--runs", "base_opd", "--adapter", "--outdir", str(tmp_path / "adapter")]]
    for command in commands:
        assert main(command) == 0, command
    scores = {run: json.loads((expdir / run / "scores.json").read_text())["sets"] for run in runs}
    start = load_file(trained / "base" / "final" / "model.safetensors")
    for run in runs:
        exported = load_file(expdir / run / "export" / "model.safetensors")
        unchanged = all(torch.equal(exported[name], value) for name, value in start.items())
        assert unchanged == (run == "base") and set(scores[run]) == {"test-a", "test-b"}
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
