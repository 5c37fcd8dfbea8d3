"""egs/conf/real.yaml: all runs with a tiny Whisper, and the paths that a user gives."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from corpus_fixture import metrics
from planned_runs import planned
from safetensors.torch import load_file
from tiny_teachers import save_whisper

from arkasr.cli import main
from arkasr.config.load import load_config
from arkasr.corpora.corpus import read_corpus_yaml

EGS = Path(__file__).parents[2] / "egs"
REAL = EGS / "conf" / "real.yaml"
ON_GPU = EGS / "conf" / "real_gpu.yaml"
CONFS = [REAL, ON_GPU, EGS / "own" / "conf" / "real.yaml", EGS / "speechocean762" / "conf" / "study.yaml"]
MORE = ["base_audio", "base_td_audio", "base_opd_labelled", "topline"]
RUNS = ["teacher", "base", "base_steps", "base_td", "base_opd", "base_td_opd"]
ENCODER = "model.audio_tower."

TINY = """
base: {conf}
model:
  encoder: {whisper}
  dropout: 0
  sizes:
    text:
      {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1}}
tokenizer: {{vocab_size: 40}}
data: {{max_seconds: 3, max_cuts: 3, num_buckets: 2, max_clip_seconds: 2}}
optim: {{lr: 1e-2, warmup_steps: 2}}
train: {{steps: 30, frozen_steps: {{encoder: 24}}, eval_every: 6, eval_clips: 2, save_every: 6}}
rollout: {{max_new_tokens: 6}}
decode: {{max_new_tokens: 6}}
distill: {{top_k: 4}}
teacher: {{options: {{max_new_tokens: 6}}}}
runs:
  teacher: {{train: {{steps: 60}}}}
  base_steps: {{train: {{steps: 2}}}}
  base_td: {{train: {{steps: 2}}}}
  base_opd: {{train: {{steps: 2}}}}
  base_td_opd: {{train: {{steps: 2}}}}
"""


@pytest.mark.parametrize("conf", CONFS, ids=lambda path: "-".join(path.parts[-3:]))
@pytest.mark.parametrize("run", [*RUNS, *MORE])
def test_every_run_takes_the_encoder_of_the_command(conf, run):
    config = load_config(str(conf), run, "E", "D", ["model.encoder=/models/whisper"])
    assert config.model.encoder == "/models/whisper" and config.data.max_clip_seconds <= 30
    assert not re.search(r"""(^|[\s"':])/\w""", re.sub("#.*", "", conf.read_text()), re.M)  # no path of a machine
    after_td = dict.fromkeys(("base_td_opd", "base_td_audio"), "E/base_td/final")
    continued = ({"teacher": "", "base": ""} | after_td).get(run, "E/base/final")
    assert config.model.path == continued and config.train.length[0] == "steps"


@pytest.mark.parametrize("conf", [REAL, ON_GPU], ids=["cpu", "gpu"])
def test_control_takes_as_many_steps_at_the_same_rates_as_opd(conf):
    control, opd = (load_config(str(conf), run, "E", "D") for run in ("base_steps", "base_opd"))
    assert control.train.length == opd.train.length and control.optim == opd.optim and control.model == opd.model
    audio = load_config(str(conf), "base_audio", "E", "D")
    assert control.augment == opd.augment and audio.data.max_seconds == opd.data.max_seconds
    assert audio.train == control.train


@pytest.mark.parametrize("run", [*RUNS, *MORE])
def test_on_a_gpu_all_parts_are_trained_on_masked_features(run):
    config = load_config(str(ON_GPU), run, "E", "D")
    assert not config.model.freeze and config.augment.masks and not config.train.cache_encoder


def test_plan_gives_the_models_of_other_runs_the_encoder_of_the_command(tmp_path):
    whisper = save_whisper(tmp_path)
    result = planned("base_opd", (f"model.encoder={tmp_path}", "data.max_clip_seconds=2"), str(REAL), clip_seconds=1.0)
    assert result["student"]["parameters"]["encoder"] == whisper.model.encoder.num_parameters()
    assert [result[model]["source"] for model in ("student", "teacher")] == [
        f"run {run}: {tmp_path}: its folder" for run in ("base", "teacher")
    ]


def test_corpus_has_adults_and_children_as_test_sets():
    corpus = read_corpus_yaml(EGS / "speechocean762" / "corpus.yaml")
    scale = corpus.scales.study
    assert list(scale.test) == ["test-adult", "test-child"] and scale.dev == ["dev"]
    assert corpus.language == "English" and scale.use.base + scale.use.td == 1


@pytest.mark.slow
def test_all_runs_with_a_tiny_whisper(datadir, tmp_path):
    whisper = save_whisper(tmp_path / "whisper")
    data, expdir = shutil.copytree(datadir, tmp_path / "data"), tmp_path / "exp"
    shutil.copy(data / "train.jsonl.gz", data / "opd.jsonl.gz")
    conf, folders = tmp_path / "tiny.yaml", ["--expdir", str(expdir), "--datadir", str(data)]
    conf.write_text(TINY.format(conf=REAL, whisper=tmp_path / "whisper"))
    for run in RUNS:
        if run == "base_td":
            assert main(["label", str(conf), *folders]) == 0
        assert main(["train", str(conf), "--run", run, *folders]) == 0, run
    assert main(["decode", *folders, "--runs", *RUNS]) == main(["score", *folders, "--runs", *RUNS]) == 0
    assert all(json.loads((expdir / run / "scores.json").read_text())["sets"] for run in RUNS)
    weights = {run: load_file(expdir / run / "final" / "model.safetensors") for run in RUNS}
    assert json.loads((expdir / "base" / "final" / "config.json").read_text())["audio_config"]["positions"] == "learned"
    moved = (weights["base"][f"{ENCODER}embed_positions.weight"] - whisper.model.encoder.embed_positions.weight).abs()
    assert 0 < moved.max() < 0.02  # trained in the last 6 steps only, at a tenth of the rate
    encoders = {run: {k: v for k, v in w.items() if k.startswith(ENCODER)} for run, w in weights.items()}
    for run in ("base_steps", "base_td", "base_opd"):
        assert all(torch.equal(v, encoders[run][k]) for k, v in encoders["base"].items())
        assert any(not torch.equal(v, weights[run][k]) for k, v in weights["base"].items())
    assert len(list((expdir / "encoder_states").glob("*/*.safetensors"))) > 2 * 12  # clips at several speeds
    assert metrics(expdir / "base")[-1]["hours_seen"] > 0
