"""The length of a run in steps, epochs or hours: its end, its learning rate, and resuming."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from corpus_fixture import make_trainer, metrics
from lhotse import CutSet
from training_runs import cost_free, train_until

from arkasr.config.schema import OptimConfig, TrainConfig
from arkasr.errors import UserError
from arkasr.training.length import RunLength
from arkasr.training.optimizer import make_optimizer
from arkasr.training.train import train

QUIET = ["train.eval_every=0", "train.save_every=0"]


def run_length(warmup_steps: int = 0, **length) -> RunLength:
    return RunLength(TrainConfig(**({"steps": 0} | length)), warmup_steps)


def hours_of(manifest) -> float:
    return sum(cut.duration for cut in CutSet.from_file(manifest)) / 3600


@pytest.mark.parametrize(("length", "epoch_hours"), [({"hours": 2.0}, 8.0), ({"epochs": 0.25}, 8.0)])
def test_run_length_follows_the_hours_drawn(length, epoch_hours):
    run = run_length(**length)
    run.epoch_hours = epoch_hours
    for _ in range(3):
        run.add(0.5)
    assert (run.step, run.drawn, run.share, run.reached) == (3, 1.5, 0.75, False)
    assert run.epochs == 1.5 / 8 and run.expected_steps == 4
    run.add(0.5 - 1e-12)  # sums of many hours are not exact
    assert run.reached and run.expected_steps == 4


def test_run_length_in_steps_does_not_depend_on_hours():
    run = run_length(steps=2)
    run.add(0.0)
    assert not run.reached and run.expected_steps == 2 and run.epochs == 0.0
    run.add(100.0)
    assert run.reached


def test_cosine_follows_the_hours_after_warm_up():
    """2 steps of warm-up draw 3 h. The remaining 8 of 11 h are the cosine, in steps of unequal size."""
    run, drawn = run_length(2, hours=11.0), [1.0, 2.0, 2.0, 2.0, 4.0]
    config = OptimConfig(lr=2.0, warmup_steps=2, min_lr_ratio=0.1)
    optimizer, schedule = make_optimizer(config, run, torch.nn.Linear(2, 2))
    rates = []
    for hours in drawn:
        rates.append(optimizer.param_groups[0]["lr"])
        run.add(hours)
        optimizer.step()
        schedule.step()
    cosine = [2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2) for share in (0.0, 0.25, 0.5, 1.0)]
    assert rates == pytest.approx([1.0, 2.0, *cosine[:3]])
    assert run.reached and optimizer.param_groups[0]["lr"] == pytest.approx(cosine[3])


def test_cosine_without_warm_up_begins_at_the_peak():
    run = run_length(epochs=1.0)
    optimizer, _ = make_optimizer(OptimConfig(lr=2.0, warmup_steps=0), run, torch.nn.Linear(2, 2))
    assert optimizer.param_groups[0]["lr"] == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("lazy", ["never", "always"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_epochs_draw_every_clip_that_often(conf, datadir, tmp_path, lazy, epochs):
    """Also if clips are left out by length, and with a clip whose audio is missing."""
    cuts = list(CutSet.from_file(datadir / "base.jsonl.gz"))
    cuts[0].recording.sources[0].source = str(tmp_path / "absent.wav")
    CutSet.from_cuts(cuts).to_file(tmp_path / "some.jsonl.gz")
    most = sorted(cut.duration for cut in cuts)[-2]
    changes = [f"train.epochs={epochs}", f"data.max_clip_seconds={most}", f"data.train={tmp_path}/some.jsonl.gz"]
    changes += [f"data.lazy={lazy}", "data.max_failed_share=0.5", *QUIET]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    rows = metrics(tmp_path / "base")
    read = sum(row["clips"] for row in rows)
    assert (read, sum(row["failed_clips"] for row in rows)) == (6 * epochs, epochs)
    assert rows[-1]["epochs_seen"] == pytest.approx(epochs, rel=1e-8)
    kept = [cut for cut in cuts if cut.duration <= most]
    assert rows[-1]["hours_seen"] * 3600 == pytest.approx(epochs * sum(c.duration for c in kept[1:]), rel=1e-6)
    assert (tmp_path / "base" / "final").is_dir()
    assert [path.name for path in (tmp_path / "base" / "checkpoints").iterdir()] == [f"step-{rows[-1]['step']:08d}"]


@pytest.mark.slow
@pytest.mark.parametrize("lazy", ["never", "always"])
def test_epoch_of_a_mix_has_the_clips_of_its_members(conf, datadir, tmp_path, lazy):
    mix = tmp_path / "both.mix.yaml"
    members = [f"- {{name: {name}, path: {datadir}/{name}.jsonl.gz}}" for name in ("base", "td")]
    mix.write_text("members:\n" + "\n".join(members) + "\n")
    train(
        str(conf),
        "base",
        str(tmp_path),
        str(datadir),
        [f"data.train={mix}", f"data.lazy={lazy}", "train.epochs=2", *QUIET],
    )
    rows = metrics(tmp_path / "base")
    assert sum(row["clips"] for row in rows) == 2 * 12 and rows[-1]["epochs_seen"] == pytest.approx(2, rel=1e-8)


@pytest.mark.slow
def test_last_step_of_hours_is_evaluated_and_its_progress_is_shown(conf, datadir, tmp_path, capsys):
    hours = round(1.4 * hours_of(datadir / "base.jsonl.gz"), 6)
    train(str(conf), "base", str(tmp_path), str(datadir), [f"train.hours={hours}", "train.eval_every=1000"])
    rows = metrics(tmp_path / "base")
    assert "dev_error" in rows[-1] and all("dev_error" not in row for row in rows[:-1])
    assert rows[-2]["hours_seen"] < hours <= rows[-1]["hours_seen"] * 1.001
    assert f"train base: {len(rows)}/{len(rows)} steps" in (told := capsys.readouterr().out)
    assert f"{rows[-1]['hours_seen']:.2f} of {hours:g} h, epoch {rows[-1]['epochs_seen']:.2f}, loss" in told


@pytest.mark.slow
@pytest.mark.parametrize("cut_at", [3, 5])
def test_run_in_epochs_resumes_bitwise(conf, datadir, tmp_path, monkeypatch, cut_at):
    changes = ["train.epochs=1.7", "train.eval_every=0", "train.save_every=1"]
    whole, cut = ([str(conf), "base", str(tmp_path / name), str(datadir), changes] for name in ("whole", "cut"))
    train(*whole)
    train_until(monkeypatch, cut_at, *cut)
    train(*cut)
    rows = [cost_free(metrics(tmp_path / name / "base")) for name in ("whole", "cut")]
    assert rows[0] == rows[1] and len({row["learning_rate"] for row in rows[0]}) > 3
    weights = [(tmp_path / name / "base" / "final" / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_run_in_epochs_is_extended_and_keeps_its_unit(conf, datadir, tmp_path, capsys):
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    train(*arguments, ["train.epochs=1", *QUIET])
    steps = metrics(tmp_path / "base")[-1]["step"]
    train(*arguments, ["train.epochs=2", *QUIET])
    told = capsys.readouterr().out
    assert f"train.epochs raised from 1 to 2; the model of step {steps} is now final-{steps:08d}" in told
    assert metrics(tmp_path / "base")[-1]["epochs_seen"] == pytest.approx(2, rel=1e-8)
    for change, message in (
        ("train.epochs=1", "config key `train.epochs` cannot be lowered from 2 to 1"),
        ("train.steps=99", "was started with `train.epochs` 2, and its length cannot be changed to `train.steps` 99"),
    ):
        with pytest.raises(UserError, match=message):
            train(*arguments, [change, *QUIET])


def test_epoch_hours_of_lazy_manifests_need_no_pass_unless_exact(conf, datadir, tmp_path, monkeypatch):
    shutil.copytree(datadir, tmp_path / "data")
    facts = json.loads((tmp_path / "data" / "corpus.json").read_text())
    facts["sets"] = {"base": {"hours": 7.5}}
    (tmp_path / "data" / "corpus.json").write_text(json.dumps(facts))
    trainer = make_trainer(conf, "base", tmp_path, tmp_path / "data", "data.lazy=always")
    assert trainer.batches.epoch_hours(exact=True) == pytest.approx(hours_of(datadir / "base.jsonl.gz"))
    monkeypatch.setattr("arkasr.data.clips.ClipReader.seconds", None)
    assert trainer.batches.epoch_hours(exact=False) == 7.5
