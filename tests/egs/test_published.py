"""egs/conf/published.yaml: its settings, its batches of random clips, and a run with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from corpus_fixture import make_trainer, metrics
from lhotse import CutSet
from planned_runs import planned

from arkasr.config.load import load_config
from arkasr.config.schema import DataConfig
from arkasr.data.dealing import Dealer, Deals
from arkasr.data.order import START
from arkasr.errors import UserError
from arkasr.training.train import train

CONF = Path(__file__).parents[2] / "egs/conf/published.yaml"
STEP = [
    "model.dtype=bfloat16", "fsdp.compute_dtype=bfloat16", "model.mask_padding=false", "optim.decay=all",
    "distill.candidates=published", "teacher.options.mask_control_tokens=true", "loss.name=ark_compat",
    "data.max_seconds=.inf", "data.num_buckets=1", "data.text_bytes_per_second=0", "data.buffer_clips=3",
]  # fmt: skip


@pytest.mark.parametrize("run", ["base_opd", "base_td_opd"])
def test_opd_runs_of_published_yaml_differ_from_paper_yaml_in_the_published_settings(run):
    paper, published = (load_config(path, run, "E", "D") for path in (CONF.with_name("paper.yaml"), CONF))
    assert paper.train.length == published.train.length == ("epochs", 1.0) and published.model.path == paper.model.path
    assert (published.optim.lr, published.optim.decay, published.optim.warmup_steps) == (1e-4, "all", 1000)
    assert (published.rollout.max_new_tokens, published.rollout.tokens_per_second) == (64, 0)
    assert published.teacher.options == paper.teacher.options | {"mask_control_tokens": True}
    assert (published.loss.name, published.distill.candidates) == ("ark_compat", "published")
    assert (published.model.dtype, published.model.mask_padding) == ("bfloat16", False)
    same = load_config(CONF, "base", "E", "D"), load_config(CONF.with_name("paper.yaml"), "base", "E", "D")
    assert same[0] == same[1]


@pytest.mark.slow
def test_published_runs_fit_80_gb_on_24_gpus():
    result = planned("base_opd", conf=str(CONF), hours=100_000.0, clip_seconds=10.0, gpu_memory=80e9 / 2**30)
    assert max(result["memory_gib"]["peaks"].values()) + 2 < 80e9 / 2**30
    assert result["all"]["steps"] == 37_500 and result["step"]["clips"] == 960


def test_batches_of_published_yaml_are_random_clips(datadir):
    """With one bucket of `max_cuts` clips per rank, each step takes the next clips of the shuffled epoch."""
    limits = {"max_seconds": float("inf"), "text_bytes_per_second": 0.0, "num_buckets": 1}
    config = DataConfig(train=str(datadir / "train.jsonl.gz"), max_cuts=3, buffer_clips=6, **limits)
    ranks = [Dealer(config, 5, rank, 2) for rank in range(2)]
    order = [clip.cut().id for clip in ranks[0].stream(0)]
    assert sorted(order) == sorted(cut.id for cut in CutSet.from_file(config.train)) and order != sorted(order)
    dealt = [iter(Deals(dealer, 0, START, [])) for dealer in ranks]
    for step in range(2):
        batches = [[clip.cut().id for clip in next(rank).clips] for rank in dealt]
        assert [len(batch) for batch in batches] == [3, 3]
        assert sorted(batches[0] + batches[1]) == sorted(order[6 * step : 6 * step + 6])


@pytest.mark.slow
def test_a_run_with_the_published_step_trains_and_keeps_its_settings(conf, trained, datadir, tmp_path):
    parts = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    train(str(conf), "base_opd", str(tmp_path), str(datadir), [*STEP, *parts, "train.epochs=1", "train.eval_every=0"])
    rows = metrics(tmp_path / "base_opd")
    assert rows[-1]["epochs_seen"] == pytest.approx(1) and all(row["loss"] > 0 for row in rows)
    config = json.loads((tmp_path / "base_opd" / "final" / "config.json").read_text())
    assert config["mask_padding"] is False and config["dtype"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False])
def test_mask_padding_of_the_configuration_replaces_that_of_the_model(conf, trained, datadir, tmp_path, masks):
    changes = [f"model.path={trained}/base/final", f"model.mask_padding={str(masks).lower()}"]
    lm = make_trainer(conf, "base", tmp_path, datadir, *changes, "train.ctc_weight=0").student.eval()
    clips = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (6000, 16000)]
    with torch.no_grad():
        alone, beside = lm.encode_audio(clips[:1])[0], lm.encode_audio(clips)[0]
    rows = min(len(alone), len(beside))
    assert (float((alone[:rows] - beside[:rows]).abs().max()) < 1e-4) == masks


def test_mask_padding_of_other_models_is_refused():
    with pytest.raises(UserError, match="model.mask_padding must be null with type qwen3_asr"):
        load_config(CONF, "base", "E", "D", ["model.type=qwen3_asr", "model.mask_padding=false"])
