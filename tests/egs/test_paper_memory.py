"""The published sizes fit: 40 clips of 15 s form one batch, and every run of every recipe needs less than 80 GB."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned_runs import planned

from arkasr.config.load import load_config
from arkasr.data.bucketing import BatchLimits

EGS = Path(__file__).parents[2] / "egs"
RECIPES = ("librispeech", "aishell", "wenetspeech")
RUNS = ("base", "base_opd", "base_td", "base_td_opd")
CLIPS, SECONDS, ROOM = 40, 15.0, 30.0  # GiB that stay free
GB_80 = 80e9 / 2**30
pytestmark = pytest.mark.slow


def conf(recipe: str) -> str:
    return str(EGS / recipe / "conf" / "paper.yaml")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("run", RUNS)
def test_forty_clips_of_15_seconds_form_a_batch_and_fit_80_gb(recipe, run):
    limits = BatchLimits(load_config(conf(recipe), run, "EXP", "DATA").data)
    assert limits.allow(CLIPS, SECONDS) and not limits.allow(CLIPS + 1, SECONDS)
    for gpus in (1, 24):
        result = planned(run, conf=conf(recipe), gpus=gpus, clip_seconds=SECONDS, gpu_memory=GB_80)
        assumed = result["assumptions"]
        needed = max(result["memory_gib"]["peaks"].values()) + assumed["reserved_memory"]
        assert needed < assumed["gpu_memory"] - ROOM


def test_without_activation_checkpointing_one_gpu_of_80_gb_is_too_small():
    result = planned("base_opd", gpus=1, clip_seconds=SECONDS, gpu_memory=GB_80)
    assert result["activation_checkpointing"]["chosen"] == "blocks"
    assert result["activation_checkpointing"]["peak_gib"] > GB_80
