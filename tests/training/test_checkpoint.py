"""Checkpoints: a resumed run is bitwise equal to an uninterrupted one, and incomplete checkpoints are ignored."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from corpus_fixture import make_trainer, metrics
from safetensors.torch import load_file
from training_runs import cost_free, train_until

from arkasr.errors import UserError
from arkasr.model.checkpoint_files import damage, load_checkpoint
from arkasr.training.checkpoint import COMPLETE, Checkpoints
from arkasr.training.ranks import Ranks
from arkasr.training.train import Trainer, train

SIX = ["train.steps=6", "train.save_every=3", "train.eval_every=3"]


def steps_of(folder) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(conf, datadir, tmp_path_factory):
    """Return a function that trains a run without interruption, once per run and changes, and returns its folder."""
    done: dict[tuple[str, ...], Path] = {}

    def run(name: str, changes: list[str]) -> Path:
        key = (name, *changes)
        if key not in done:
            expdir = tmp_path_factory.mktemp("whole")
            torch.manual_seed(1234)
            train(str(conf), name, str(expdir), str(datadir), changes)
            done[key] = expdir / name
        return done[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "run, changes",
    [
        ("base", []),
        ("base", ["data.num_workers=1", "train.accumulate=2"]),
        ("teacher", []),
        ("base_opd", []),
        ("base_opd", ["rollout.temperature=1.0"]),  # sampled tokens need the state of the random generators
        (  # also sampled transcripts and sources, and diagnostics after the interruption
            "base_opd",
            [
                *("rollout.temperature=1.0", "rollout.top_p=0.9", "rollout.samples=2", "distill.diagnose_every=2"),
                "distill.mix={student: 1, teacher: 1, reference: 1}",
            ],
        ),
    ],
)
@pytest.mark.parametrize("cut_at", [4, 6])
def test_resumed_run_is_bitwise_equal_to_uninterrupted_run(
    conf, trained, datadir, tmp_path, monkeypatch, whole, run, changes, cut_at
):
    if run == "base_opd":
        changes = [*changes, f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    arguments = [str(conf), run, str(tmp_path), str(datadir), [*SIX, *changes]]
    folders = [whole(run, arguments[-1]), tmp_path / run]
    torch.manual_seed(1234)
    train_until(monkeypatch, cut_at, *arguments)
    assert steps_of(folders[1]) == ["step-00000003"] and not (folders[1] / "final").exists()
    torch.manual_seed(4321)  # a new process starts with other generators
    train(*arguments)
    weights = [load_file(folder / "final" / "model.safetensors") for folder in folders]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = [cost_free(metrics(folder)) for folder in folders]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4, 5, 6]  # each step once
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[1] if "dev_error" in row] == [3, 6]


def test_run_interrupted_before_first_checkpoint_starts_over(conf, datadir, tmp_path, monkeypatch, whole):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), SIX]
    train_until(monkeypatch, 3, *arguments)
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2]
    train(*arguments)
    rows = [cost_free(metrics(folder)) for folder in (whole("base", SIX), tmp_path / "base")]
    assert rows[0] == rows[1] and len(rows[0]) == 6


def test_resume_restores_whole_training_state(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir)
    for _ in zip(range(3), stream := iter(trainer.batches)):
        trainer.take_step(stream)
    trainer.step, trainer.guards.in_a_row = 3, 2
    trainer.save()
    torch.rand(5)
    expected = torch.rand(3)
    trainer.checkpoints.load_newest(trainer.student, trainer.optimizer)
    torch.rand(5)
    assert torch.equal(torch.rand(3), expected)
    other = make_trainer(conf, "base", tmp_path, datadir)
    other.resume()
    assert (other.step, other.guards.in_a_row, other.hours) == (3, 2, trainer.hours)
    assert list(other.guards.norms) == list(trainer.guards.norms) and len(other.guards.norms) == 3
    assert other.batches.state_dict() == trainer.batches.state_dict()
    assert other.schedule.get_last_lr() == trainer.schedule.get_last_lr()
    for saved, restored in zip(trainer.student.parameters(), other.student.parameters(), strict=True):
        assert torch.equal(saved, restored)
        saved_state, restored_state = trainer.optimizer.state[saved], other.optimizer.state[restored]
        assert saved_state.keys() == restored_state.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(saved_state[name], restored_state[name]) for name in saved_state)
    rates = [[group["lr"] for group in t.optimizer.param_groups] for t in (trainer, other)]
    assert rates[0] == rates[1]


def test_resume_ignores_incomplete_checkpoints(conf, datadir, tmp_path, monkeypatch, capsys):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), SIX]
    train_until(monkeypatch, 5, *arguments)
    folder = tmp_path / "base" / "checkpoints"
    shutil.copytree(folder / "step-00000003", folder / "step-00000004")
    (folder / "step-00000004" / "COMPLETE").unlink()
    shutil.copytree(folder / "step-00000003", folder / "writing-00000005")
    broken = folder / "writing-00000006" / "weights"
    broken.mkdir(parents=True)
    (broken / "__0_0.distcp").write_bytes(b"half")
    capsys.readouterr()
    train(*arguments)
    assert f"resuming from {folder / 'step-00000003'} (step 3)" in capsys.readouterr().out
    assert (tmp_path / "base" / "final" / "model.safetensors").is_file()


def test_save_replaces_partly_written_checkpoint(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir)
    left = tmp_path / "base" / "checkpoints" / "writing-00000002"
    left.mkdir(parents=True)
    (left / "COMPLETE").touch()
    (left / "state.json").write_text("half")
    trainer.take_step(iter(trainer.batches))
    trainer.step = 2
    trainer.save()
    trainer.checkpoints.wait()
    assert steps_of(tmp_path / "base") == ["step-00000002"]
    assert json.loads((tmp_path / "base" / "checkpoints" / "step-00000002" / "state.json").read_text())["step"] == 2
    other = make_trainer(conf, "base", tmp_path, datadir)
    other.resume()
    assert other.step == 2


@pytest.mark.parametrize("keep", [1, 3])
def test_save_keeps_newest_checkpoints(conf, datadir, tmp_path, keep):
    changes = ["train.steps=6", "train.save_every=1", f"train.keep={keep}", "train.keep_best=0"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert steps_of(tmp_path / "base") == [f"step-{step:08d}" for step in range(7 - keep, 7)]


def test_complete_ignores_checkpoint_without_marker(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (9, 10, 100):
        (folder / f"step-{step:08d}").mkdir(parents=True)
    (folder / "step-00000009" / "COMPLETE").touch()
    (folder / "step-00000100" / "COMPLETE").touch()
    assert [path.name for path in Checkpoints(folder, Ranks(), 2).complete()] == ["step-00000009", "step-00000100"]


def test_resume_removes_truncated_line_of_metrics(conf, datadir, tmp_path, monkeypatch):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), SIX]
    train_until(monkeypatch, 6, *arguments)
    path = tmp_path / "base" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    train(*arguments)
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2, 3, 4, 5, 6]


def test_save_final_removes_transcripts_of_earlier_weights(conf, datadir, tmp_path):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), SIX]
    train(*arguments)
    folder = tmp_path / "base"
    (folder / "decode").mkdir()
    (folder / "decode" / "test-a.jsonl").write_text("{}\n")
    train(*arguments)
    assert (folder / "decode" / "test-a.jsonl").is_file()  # the run was finished, so nothing was trained
    shutil.rmtree(folder / "final")
    train(*arguments)
    assert (folder / "final" / "config.json").is_file() and not (folder / "decode").exists()


def test_save_final_replaces_partly_written_model(conf, datadir, tmp_path):
    (tmp_path / "base" / "writing-final").mkdir(parents=True)
    (tmp_path / "base" / "writing-final" / "config.json").write_text("half")
    train(str(conf), "base", str(tmp_path), str(datadir), ["train.steps=1"])
    assert not (tmp_path / "base" / "writing-final").exists()
    assert json.loads((tmp_path / "base" / "final" / "config.json").read_text())["model_type"] == "arkasr"


@pytest.mark.slow
def test_training_continues_during_save_without_changing_the_saved_state(conf, datadir, tmp_path, monkeypatch):
    write_data = dcp.FileSystemWriter.write_data

    def slow(self, *arguments):
        time.sleep(1.0)
        return write_data(self, *arguments)

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", slow)
    trainer = make_trainer(conf, "base", tmp_path, datadir)
    stream = iter(trainer.batches)
    trainer.take_step(stream)
    trainer.step = 1
    before = [p.detach().clone() for p in trainer.student.parameters()]
    trainer.save()
    trainer.take_step(stream)
    trainer.checkpoints.poll()
    assert steps_of(tmp_path / "base") == ["writing-00000001"]  # still being written after another step
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.student.parameters(), strict=True))
    trainer.checkpoints.wait()
    assert steps_of(tmp_path / "base") == ["step-00000001"]
    trainer.resume()
    assert trainer.step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.student.parameters(), strict=True))


def trainer_with_checkpoints(conf, datadir, tmp_path, *steps):
    """Return a trainer that has saved checkpoints of these steps."""
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.keep=9")
    stream = iter(trainer.batches)
    for step in steps:
        while trainer.step < step:
            trainer.take_step(stream)
            trainer.step += 1
        trainer.save()
    trainer.checkpoints.wait()
    return trainer


def flip_bit(path: Path) -> None:
    """Flip the lowest bit of the byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", ["truncated", "missing", "marker", "empty marker", "flipped bit", "flipped state"])
def test_resume_skips_damaged_checkpoint(conf, datadir, tmp_path, capsys, harm):
    trainer = trainer_with_checkpoints(conf, datadir, tmp_path, 1, 2)
    newest = tmp_path / "base" / "checkpoints" / "step-00000002"
    weights = next((newest / "weights").glob("*.distcp"))
    if harm == "truncated":
        with weights.open("r+b") as file:
            file.truncate(weights.stat().st_size - 1)
    elif harm == "missing":
        weights.unlink()
    elif harm in ("marker", "empty marker"):
        (newest / "COMPLETE").write_text("half" if harm == "marker" else "")
    else:
        flip_bit(weights if harm == "flipped bit" else newest / "state.json")
    trainer.resume()
    printed = capsys.readouterr().out
    assert trainer.step == 1 and f"{newest}: " in printed and "skipped, trying the previous one" in printed
    if harm in ("flipped bit", "flipped state"):
        name = weights.relative_to(newest) if harm == "flipped bit" else "state.json"
        assert f"{newest}: {name} was changed after it was written" in printed
    shutil.rmtree(newest.with_name("step-00000001"))
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        trainer.resume()


def test_save_flushes_files_before_marker_and_rename(conf, datadir, tmp_path, monkeypatch):
    """After a power cut only flushed data remains, so the order is files, COMPLETE, rename."""
    flushed, fsync = [], os.fsync

    def record(handle):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    [path] = trainer_with_checkpoints(conf, datadir, tmp_path, 1).checkpoints.complete()
    sizes = json.loads((path / COMPLETE).read_text())
    places = {
        name: max(i for i, seen in enumerate(flushed) if str(seen).endswith(f"-00000001/{name}")) for name in sizes
    }
    marker = max(i for i, seen in enumerate(flushed) if seen.name == COMPLETE)
    assert len(sizes) > 4 and max(places.values()) < marker < flushed.index(path.parent)


def test_complete_lists_size_and_digest_of_every_file(conf, datadir, tmp_path):
    [path] = trainer_with_checkpoints(conf, datadir, tmp_path, 1).checkpoints.complete()
    listed = json.loads((path / COMPLETE).read_text())
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.name != COMPLETE}
    assert {"state.json", "rng-00000.json", "weights/__0_0.distcp", "weights/.metadata"} < files.keys()
    assert listed == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }


def test_checkpoint_of_an_earlier_version_is_resumed(conf, datadir, tmp_path, capsys):
    """It lists sizes only, and its random generators are pickled, so they are not read."""
    trainer = trainer_with_checkpoints(conf, datadir, tmp_path, 1)
    [path] = trainer.checkpoints.complete()
    (path / "rng-00000.json").unlink()
    torch.save({"torch": torch.get_rng_state()}, path / "rng-00000.pt")
    sizes = {str(p.relative_to(path)): p.stat().st_size for p in path.rglob("*") if p.is_file() and p.name != COMPLETE}
    (path / COMPLETE).write_text(json.dumps(sizes))
    other = make_trainer(conf, "base", tmp_path, datadir)
    other.resume()
    assert other.step == 1 and "random generators are seeded from step 1" in capsys.readouterr().out


def test_load_checkpoint_refuses_a_flipped_bit(conf, datadir, tmp_path):
    [path] = trainer_with_checkpoints(conf, datadir, tmp_path, 1).checkpoints.complete()
    flip_bit(path / "weights" / "__0_0.distcp")
    with pytest.raises(UserError, match=f"^{path}: weights/__0_0.distcp was changed after .*; use another checkpoint"):
        load_checkpoint(path)


def test_resume_removes_partly_deleted_and_partly_written_checkpoints(conf, datadir, tmp_path):
    trainer_with_checkpoints(conf, datadir, tmp_path, 1, 2, 3)
    folder = tmp_path / "base" / "checkpoints"
    (folder / "step-00000001" / "COMPLETE").unlink()
    (folder / "writing-00000004").mkdir()
    other = make_trainer(conf, "base", tmp_path, datadir)
    other.resume()
    assert other.step == 3 and steps_of(tmp_path / "base") == ["step-00000002", "step-00000003"]


def test_damaged_checkpoint_does_not_count_towards_keep(conf, datadir, tmp_path):
    trainer_with_checkpoints(conf, datadir, tmp_path, 1, 4)
    newest = tmp_path / "base" / "checkpoints" / "step-00000004"
    (newest / "state.json").write_text("half")
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.keep=1", "train.keep_best=0")
    trainer.resume()
    stream = iter(trainer.batches)
    for trainer.step, left in ((2, [2, 4]), (3, [3, 4]), (5, [5])):  # it is deleted once training has passed its step
        trainer.take_step(stream)
        trainer.save()
        trainer.checkpoints.wait()
        assert steps_of(tmp_path / "base") == [f"step-{step:08d}" for step in left]


def test_resume_refuses_checkpoint_of_another_model(conf, datadir, tmp_path):
    trainer_with_checkpoints(conf, datadir, tmp_path, 1)
    other = make_trainer(conf, "base", tmp_path / "other", datadir, "model.sizes.text.intermediate_size=40")
    shutil.copytree(tmp_path / "base" / "checkpoints", tmp_path / "other" / "base" / "checkpoints")
    with pytest.raises(
        UserError, match=r"step-00000001: holds another model .* is \(16, 32\) in the .* \(16, 40\) in this run"
    ):
        other.resume()


def test_save_keeps_checkpoints_with_lowest_dev_error(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.keep=1", "train.keep_best=2")
    trainer.take_step(iter(trainer.batches))
    for trainer.step, dev_error in enumerate([0.5, 0.2, None, 0.3, 0.4, None], start=1):
        trainer.save(dev_error)
    trainer.checkpoints.wait()
    assert steps_of(tmp_path / "base") == ["step-00000002", "step-00000004", "step-00000006"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_after_the_step_and_same_command_resumes(conf, datadir, tmp_path, monkeypatch, whole, number):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), SIX]
    take_step = Trainer.take_step

    def signalled(self, batches):
        if self.step == 3:  # no save or evaluation is due at step 4
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        return take_step(self, batches)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", signalled)
        train(*arguments)
    folder = tmp_path / "base"
    assert steps_of(folder)[-1] == "step-00000004" and not (folder / "final").exists()
    assert signal.getsignal(number) == before
    train(*arguments)
    folders = [whole("base", SIX), folder]
    weights = [load_file(each / "final" / "model.safetensors") for each in folders]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    rows = [cost_free(metrics(each)) for each in folders]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_full_disk_ends_the_run_and_keeps_previous_checkpoint(conf, datadir, tmp_path, monkeypatch):
    write_data, folder = dcp.FileSystemWriter.write_data, tmp_path / "base" / "checkpoints"

    def full(self, *arguments):
        if "00000004" in str(self.path):
            raise OSError(28, "No space left on device", str(self.path))
        return write_data(self, *arguments)

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    changes = ["train.steps=8", "train.save_every=2"]
    with pytest.raises(BaseException, match="No space left"):
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert [p.name for p in folder.iterdir()] == ["step-00000002"]  # the partly written checkpoint is deleted
    monkeypatch.undo()
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert [row["step"] for row in metrics(tmp_path / "base")] == list(range(1, 9))


def test_marker_without_files_is_damaged(tmp_path):
    (tmp_path / COMPLETE).write_text("{}")
    assert damage(tmp_path) == "its COMPLETE lists no files"
