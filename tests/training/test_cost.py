"""What a finished run has cost: operations, audio and tokens are those of its steps, summed over resumes."""

from __future__ import annotations

import json

import pytest
from training_runs import train_until

from arkasr.training.cost import KEYS, WallTime, record_cost
from arkasr.training.throughput import Throughput
from arkasr.training.train import train


def cost_of(expdir, run) -> dict:
    record = json.loads((expdir / run / "run.json").read_text())
    return {key: record[key] for key in KEYS}


def test_wall_time_adds_earlier_starts_and_is_unknown_if_one_is():
    time = WallTime()
    time.before = 100.0
    assert 100 <= time.seconds < 200
    time.before = None
    assert time.seconds is None


def test_record_cost_keeps_other_keys(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"command": "arkasr train", "flops": 1.0}')
    record_cost(path, {"flops": 5.0, "wall_seconds": None, "hours": 2.0, "tokens": 3.0})
    known = {"command": "arkasr train", "flops": 5.0, "wall_seconds": None, "hours": 2.0, "tokens": 3.0}
    assert json.loads(path.read_text()) == known


@pytest.mark.slow
@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_resumed_run_has_the_cost_of_an_uninterrupted_one(conf, trained, datadir, tmp_path, monkeypatch, run):
    steps, count = [], Throughput.flops
    monkeypatch.setattr(Throughput, "flops", lambda self, sums: steps.append(count(self, sums)) or steps[-1])
    parts = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    words = [*(parts if run == "base_opd" else []), "train.steps=4", "train.save_every=2", "train.eval_every=0"]
    train(str(conf), run, str(tmp_path / "whole"), str(datadir), words)
    whole = cost_of(tmp_path / "whole", run)
    assert len(steps) == 4 and whole["flops"] == sum(steps) > 0
    last = json.loads((tmp_path / "whole" / run / "metrics.jsonl").read_text().splitlines()[-1])
    assert (whole["hours"], whole["tokens"]) == pytest.approx((last["hours_seen"], last["tokens_seen"]))
    arguments = str(conf), run, str(tmp_path / "resumed"), str(datadir), words
    train_until(monkeypatch, 4, *arguments)
    assert "flops" not in json.loads((tmp_path / "resumed" / run / "run.json").read_text())
    train(*arguments)
    resumed = cost_of(tmp_path / "resumed", run)
    assert len(steps) == 4 + 3 + 2  # step 3 was taken twice, and counts once
    assert {**resumed, "wall_seconds": 0} == {**whole, "wall_seconds": 0}
    assert resumed["wall_seconds"] > 0
