"""The training loop: batch splitting, logged learning rate, skipped steps, written files, and messages."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from corpus_fixture import LONGER, clips, make_trainer, metrics, write_cuts
from lhotse import CutSet
from safetensors.torch import load_file
from torch.optim.lr_scheduler import LambdaLR

from arkasr.cli import main
from arkasr.config.load import load_config, read_config
from arkasr.config.schema import DecodeConfig
from arkasr.data import loading
from arkasr.data.batches import Batch, load_batch
from arkasr.errors import UserError
from arkasr.evaluation.dev_set import DevSet, sample_over_speakers
from arkasr.evaluation.hypotheses import transcribe
from arkasr.model.loading import load_speech_lm
from arkasr.scoring.normalize import words as clean
from arkasr.training.train import train


def plain_descent(trainer) -> None:
    """Use plain SGD: AdamW divides by the gradient's size and would amplify rounding where a gradient is almost 0."""
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=0.05)
    trainer.schedule = LambdaLR(trainer.optimizer, lambda step: 1.0)


def cost_free(row: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in row.items()
        if not name.startswith(("time/", "memory/", "tokens_per", "tera", "mfu"))
    }


# How the global batch is split


@pytest.mark.parametrize("run", ["base", "teacher", "base_opd"])
def test_step_is_the_same_for_four_batches_of_one_clip_and_one_batch_of_four(conf, trained, datadir, tmp_path, run):
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    overrides = overrides if run == "base_opd" else []
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    runs = []
    overrides += ["distill.diagnose_every=1"]
    for split in (False, True):
        folder = tmp_path / f"split-{split}"
        trainer = make_trainer(conf, run, folder, datadir, f"train.accumulate={4 if split else 1}", *overrides)
        plain_descent(trainer)
        shares = [[i] for group in groups for i in group] if split else groups
        parts = (clips(datadir / "train.jsonl.gz", share) for share in shares)
        rows = [cost_free(trainer.take_step(parts)) for _ in groups]
        runs.append((rows, trainer.student.state_dict()))
    (whole, whole_weights), (split_up, split_weights) = runs
    assert whole[0]["tokens"] > 8 and whole[0]["gradient_norm"] > 0
    for one, other in zip(whole, split_up):
        assert one == pytest.approx(other, rel=2e-4)
    torch.testing.assert_close(whole_weights, split_weights, rtol=1e-3, atol=2e-5)


def test_gradients_are_clipped_after_division_by_the_count(conf, datadir, tmp_path):
    moved = []
    for clip in (1e9, 0.01):
        trainer = make_trainer(conf, "base", tmp_path / str(clip), datadir, f"optim.clip={clip}")
        plain_descent(trainer)
        before = [p.detach().clone() for p in trainer.student.parameters()]
        norm = trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [0, 1])]))["gradient_norm"]
        steps = [(p.detach() - q) / 0.05 for p, q in zip(trainer.student.parameters(), before)]
        moved.append((norm, math.sqrt(sum(float((s**2).sum()) for s in steps))))
    (norm, length), (same_norm, clipped) = moved
    assert norm == pytest.approx(length, rel=1e-3) and norm == same_norm > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-2)


# Logged learning rate


def test_logged_learning_rate_is_the_one_used_in_the_step(conf, datadir, tmp_path):
    train(str(conf), "base", str(tmp_path), str(datadir), [])
    found = [row["learning_rate"] for row in metrics(tmp_path / "base")]
    assert found == pytest.approx([0.005, 0.01, 0.01, 0.01 * 0.55])


# Skipped steps


def with_bad_audio(batch: Batch) -> Batch:
    """Make the first waveform so loud that loss and gradient overflow."""
    batch.waveforms[0] = torch.full_like(batch.waveforms[0], 1e30)
    return batch


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_step_with_non_finite_gradient_is_not_applied(conf, datadir, tmp_path, capsys):
    trainer = make_trainer(conf, "base", tmp_path, datadir)
    before = trainer.student.head.detach().clone()
    row = trainer.take_step(iter([with_bad_audio(clips(datadir / "train.jsonl.gz", [0, 1]))]))
    assert math.isnan(row["gradient_norm"]) and torch.equal(trainer.student.head, before)
    assert "step 1 skipped: loss nan, gradient norm nan (1 in a row)" in capsys.readouterr().out
    assert trainer.guards.in_a_row == 1 and trainer.student.head.grad is None
    row = trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [2, 3])]))
    assert math.isfinite(row["gradient_norm"]) and not torch.equal(trainer.student.head, before)
    assert trainer.guards.in_a_row == 0 and row["skipped_steps"] == 1
    assert row["learning_rate"] == pytest.approx(0.01)  # the schedule advances in skipped steps too


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_too_many_skipped_steps_in_a_row_end_the_run(conf, datadir, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load_batch", lambda *clips: with_bad_audio(load_batch(*clips)))
    changes = ["train.steps=50", "train.save_every=4", "train.eval_every=0", "train.max_skipped=7"]
    expected = rf"{tmp_path / 'base'}: 7 steps in a row were skipped .*; lower optim.lr"
    with pytest.raises(UserError, match=expected):
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    rows = metrics(tmp_path / "base")
    assert [row["skipped_steps"] for row in rows] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match=expected):  # resumed at step 4, after which three more may be skipped
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert [row["step"] for row in metrics(tmp_path / "base")] == [row["step"] for row in rows]
    assert not (tmp_path / "base" / "final").exists()


# Written files


def test_run_writes_record_metrics_and_final_model(trained, conf, datadir):
    for run in ("teacher", "base"):
        folder = trained / run
        config = read_config(folder / "config.yaml")
        assert config == load_config(conf, run, str(trained), str(datadir), LONGER) and config.run == run
        record = json.loads((folder / "run.json").read_text())
        assert record["command"].startswith("arkasr") and record["versions"]["torch"] == torch.__version__.split("+")[0]
        assert {"commit", "plugins", "started", "world_size"} <= record.keys()
        assert {row["name"] for row in record["plugins"]} >= {"qwen3_asr", "shared_strings", "union_topk_kl"}
        rows = metrics(folder)
        assert [row["step"] for row in rows] == list(range(1, 81))
        expected = {"loss", "ce", "ctc", "gradient_norm", "tokens_per_second", "time/step"}
        assert all(expected <= row.keys() for row in rows)
        assert [row["step"] for row in rows if "dev_error" in row] == [40, 80]
        assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
        lm = load_speech_lm(str(folder / "final"))
        assert lm.ctc_head is None and lm.hf.config.model_type == config.model.type
        assert lm.tokenizer.get_vocab() == load_speech_lm(str(folder / "final")).tokenizer.get_vocab()


def test_hours_seen_adds_up(trained, datadir):
    rows = metrics(trained / "teacher")
    seconds = {cut.duration for cut in CutSet.from_file(datadir / "train.jsonl.gz")}
    assert [row["hours_seen"] for row in rows] == sorted(row["hours_seen"] for row in rows)
    assert 0 < rows[-1]["hours_seen"] * 3600 <= sum(row["clips"] for row in rows) * max(seconds)


def test_distillation_logs_rates_and_times(conf, trained, datadir, tmp_path):
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    train(str(conf), "base_opd", str(tmp_path), str(datadir), overrides)
    rows = metrics(tmp_path / "base_opd")
    assert all("time/optimizer" in row for row in rows[1:])  # times since the previous row
    for row in rows:
        expected = "loss vuss vuss_min vuss_max overlap stop_rate empty_rate mismatch_rate coverage tokens_per_second"
        assert set(expected.split()) <= row.keys()
        assert {f"time/{phase}" for phase in ["rollout", "teacher", "student", "backward", "data"]} <= row.keys()
        assert row["loss"] >= 0 and 0 <= row["overlap"] <= 1 and row["vuss"] <= 8
    load_speech_lm(str(tmp_path / "base_opd" / "final"))


def test_dev_errors_of_ranks_add_up_to_errors_of_decoded_clips(trained, datadir):
    lm, settings = load_speech_lm(str(trained / "base" / "final")), DecodeConfig(max_new_tokens=6, max_seconds=2)
    found = [DevSet(str(datadir / "dev.jsonl.gz"), 3, rank, 2).errors(lm, settings) for rank in (0, 1)]
    sample = sample_over_speakers(list(CutSet.from_file(datadir / "dev.jsonl.gz")), 3)
    batch = load_batch(sample)
    errors = words = 0
    for row in transcribe(lm, batch, settings):
        reference, hypothesis = clean(row["reference"]).split(), clean(row["hypothesis"]).split()
        words += len(reference)
        errors += reference_edit_distance(reference, hypothesis)
    assert sum(f["errors"] for f in found) == errors > 0 and sum(f["words"] for f in found) == words


def reference_edit_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def test_dev_set_of_rank_without_clips_has_no_errors(trained, datadir):
    lm = load_speech_lm(str(trained / "base" / "final"))
    found = DevSet(str(datadir / "dev.jsonl.gz"), 1, 3, 4).errors(lm, DecodeConfig(max_new_tokens=4))
    assert found == {"errors": 0.0, "words": 0.0, "clips": 0.0, "failed": 0.0}


# Directory of the run


def test_finished_run_is_not_trained_again(conf, datadir, tmp_path, capsys):
    train(str(conf), "base", str(tmp_path), str(datadir), [])
    written = [
        p for p in (tmp_path / "base").rglob("*") if p.is_file() and p.name not in ("config.yaml", ".arkasr.lock")
    ]
    before = {path: path.stat().st_mtime_ns for path in written}
    capsys.readouterr()
    train(str(conf), "base", str(tmp_path), str(datadir), [])
    assert "already trained; nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_changed_settings_are_refused_and_named(conf, trained, datadir):
    changes = [*LONGER, "optim.lr=0.5", "seed=3", "model.sizes.text.hidden_size=32"]
    with pytest.raises(UserError) as caught:
        train(str(conf), "base", str(trained), str(datadir), changes)
    message = str(caught.value)
    assert f"{trained}/base/config.yaml: this run was started with other settings" in message
    assert "(seed, model.sizes.text.hidden_size, optim.lr)" in message and "use another --expdir" in message


def test_settings_without_effect_on_results_may_change(conf, datadir, tmp_path, capsys):
    train(str(conf), "base", str(tmp_path), str(datadir), ["train.steps=1"])
    changes = ["train.steps=1", "data.num_workers=1", "train.keep=9", "train.log_every=3", "train.threads=2"]
    changes += ["distill.diagnose_every=3", "decode.max_new_tokens=99"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert "already trained" in capsys.readouterr().out
    saved = read_config(tmp_path / "base" / "config.yaml")
    assert (saved.train.keep, saved.decode.max_new_tokens) == (9, 99)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("mapper.name=byte_offsets mapper.options.least_told=0.4", "is now called min_mapped_mass"),
        ("loss.options.temperture=2", "did you mean temperature"),
        ("teacher.name=qwen", "no teacher is called 'qwen'"),
    ],
)
def test_wrong_plugin_is_refused_before_the_run_has_a_directory(conf, datadir, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(str(conf), "base_opd", str(tmp_path), str(datadir), overrides.split())
    assert not (tmp_path / "base_opd").exists()


def test_second_run_in_same_directory_is_refused(conf, datadir, tmp_path):
    (tmp_path / "base").mkdir()
    code = "import sys; from pathlib import Path; from arkasr.utils.files import locked\n"
    code += "with locked(Path(sys.argv[1]), 'training'): print(flush=True); input()"
    words = [sys.executable, "-c", code, str(tmp_path / "base")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(UserError, match=f"^{tmp_path / 'base'}: training, process {holder.pid} on .* is using"):
            train(str(conf), "base", str(tmp_path), str(datadir), [])
        holder.stdin.close()
    assert not (tmp_path / "base" / "config.yaml").exists()
    train(str(conf), "base", str(tmp_path), str(datadir), ["train.steps=1"])  # the lock is free again
    assert (tmp_path / "base" / "final" / "config.json").is_file()


def test_seed_determines_the_weights(conf, datadir, tmp_path):
    heads = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(str(conf), "base", str(tmp_path / folder), str(datadir), [f"seed={seed}", "train.steps=2"])
        heads.append(load_speech_lm(str(tmp_path / folder / "base" / "final")).head)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


# Errors


@pytest.mark.parametrize(
    "run, changes, message",
    [
        ("base_opd", [], "base/final: no config.json"),
        ("base_td", ["model.path={trained}/base/final"], "td_teacher.jsonl.gz: no such manifest"),
        ("base", ["model.path={trained}/teacher/final"], "holds a model of type qwen3_asr, but `model.type` is arkasr"),
        ("base", ["model.type=qwen3_asr"], "config key `model.sizes.audio` is missing"),
        ("base_opd", ["model.path={trained}/base/final", "loss.name=nothing"], "no loss is called 'nothing'"),
    ],
)
def test_user_errors_are_reported_in_one_line(conf, trained, datadir, tmp_path, capsys, run, changes, message):
    changes = [change.replace("{trained}", str(trained)) for change in changes]
    changes += [f"teacher.options.path={trained}/teacher/final"] if run == "base_opd" else []
    words = ["train", str(conf), "--run", run, "--expdir", str(tmp_path), "--datadir", str(datadir), *changes]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / run / "final").exists()


def test_missing_dev_manifest_is_reported_before_training(conf, datadir, tmp_path):
    write_cuts(tmp_path / "base.jsonl.gz", list(CutSet.from_file(datadir / "base.jsonl.gz")))
    (tmp_path / "corpus.json").write_text((datadir / "corpus.json").read_text())
    with pytest.raises(UserError, match="dev.jsonl.gz: no such manifest"):
        train(str(conf), "base", str(tmp_path), str(tmp_path), ["tokenizer.text={datadir}/base.jsonl.gz"])
    assert not (tmp_path / "base" / "checkpoints").exists()


def test_pickled_weights_need_allow_pickle(conf, trained, datadir, tmp_path):
    folder = shutil.copytree(trained / "base" / "final", tmp_path / "pickled")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model.bin: pickled weights.* set model\.allow_pickle=true"):
        make_trainer(conf, "base", tmp_path, datadir, f"model.path={folder}")
    trainer = make_trainer(conf, "base", tmp_path, datadir, f"model.path={folder}", "model.allow_pickle=true")
    assert torch.equal(
        trainer.student.hf.state_dict()["lm_head.weight"], weights["model.language_model.embed_tokens.weight"]
    )
