"""The run's directory: its lock, and which changes of settings and inputs a later start may have."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_fixture import metrics
from lhotse import CutSet
from training_runs import train_until

from arkasr.config.load import load_config, read_config
from arkasr.errors import UserError
from arkasr.testing.tiny import tiny_student
from arkasr.training.ranks import Ranks
from arkasr.training.run_record import run_directory
from arkasr.training.train import train


class FirstRank:
    """Rank 0 of several ranks, with the attributes that `run_directory` uses."""

    first = True

    def __init__(self, world_size: int):
        self.world_size = world_size

    def gather(self, item: object) -> list:
        """Do not wait for other ranks."""
        return [item]


def test_fewer_ranks_may_accumulate_more_batches(conf, datadir, tmp_path):
    def hold(world_size, accumulate):
        config = load_config(str(conf), "base", str(tmp_path), str(datadir), [f"train.accumulate={accumulate}"])
        with run_directory(tmp_path / "base", config, FirstRank(world_size)):
            pass

    hold(24, 1)
    (tmp_path / "base" / "metrics.jsonl").write_text('{"step": 1}\n')
    record = tmp_path / "base" / "run.json"
    assert '"batches_per_step": 24' in record.read_text()
    record.write_text(record.read_text().replace("batches_per_step", "batches_a_step"))  # its name in older runs
    hold(8, 3)
    hold(1, 24)
    with pytest.raises(UserError, match=r"other settings \(train.accumulate\)"):
        hold(8, 2)
    hold(12, 2)


LEAVES_A_CHILD = """
import os, sys, time
from pathlib import Path
from arkasr.config.load import load_config
from arkasr.training.ranks import Ranks
from arkasr.training.run_record import run_directory
conf, expdir, datadir = sys.argv[1:]
with run_directory(Path(expdir) / "base", load_config(conf, "base", expdir, datadir), Ranks()):
    if child := os.fork():
        print(child, flush=True)
        os._exit(0)
    os.closerange(0, 3)
    time.sleep(600)  # the test kills it
"""


@pytest.mark.slow
def test_process_forked_by_a_killed_run_does_not_hold_the_lock(conf, datadir, tmp_path):
    words = [sys.executable, "-c", LEAVES_A_CHILD, str(conf), str(tmp_path), str(datadir)]
    child = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    try:
        with run_directory(tmp_path / "base", load_config(conf, "base", tmp_path, datadir), Ranks()):
            os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)


# A start that took no step


def test_settings_of_a_start_that_took_no_step_are_replaced(conf, datadir, tmp_path):
    """The first command fails, because its data has no suitable clip. The corrected one must not be refused."""
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    with pytest.raises(UserError, match="no cut lasts"):
        train(*arguments, ["data.min_clip_seconds=20", "tokenizer.vocab_size=30"])
    folder = tmp_path / "base"
    assert (folder / "config.yaml").is_file() and (folder / "run.json").is_file()
    train(*arguments, ["train.steps=1", "tokenizer.vocab_size=40"])
    assert read_config(folder / "config.yaml").data.min_clip_seconds < 20
    assert json.loads((folder / "final" / "config.json").read_text())["model_type"] == "arkasr"


def test_tokenizer_of_a_start_that_took_no_step_is_trained_again(conf, datadir, tmp_path, monkeypatch):
    sizes = []
    for size in (30, 45):
        changes = ["train.steps=2", f"tokenizer.vocab_size={size}"]
        if size == 30:
            train_until(monkeypatch, 1, str(conf), "base", str(tmp_path), str(datadir), changes)
        else:
            train(str(conf), "base", str(tmp_path), str(datadir), changes)
        sizes.append(
            len(json.loads((tmp_path / "base" / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])
        )
    assert sizes[0] < sizes[1]


# Damaged records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "", "empty or cut short; restore it, or delete it"),
        ("config.yaml", "model:\n  type: ark", "empty or cut short; restore it, or delete it"),
        ("run.json", "", "not valid JSON .*; restore it, or delete it"),
        ("run.json", '{"inputs": {', "not valid JSON .*; restore it, or delete it"),
        ("run.json", "[]", "must hold a JSON object, got list; restore it, or delete it"),
    ],
)
def test_damaged_record_is_one_sentence_and_may_be_deleted(
    conf, datadir, tmp_path, monkeypatch, name, content, message
):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), ["train.save_every=1"]]
    train_until(monkeypatch, 3, *arguments)
    path = tmp_path / "base" / name
    path.write_text(content)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        train(*arguments)
    path.unlink()
    train(*arguments)
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2, 3, 4]


def test_damaged_tokenizer_is_one_sentence(conf, datadir, tmp_path, monkeypatch):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), ["train.save_every=1"]]
    train_until(monkeypatch, 3, *arguments)
    path = tmp_path / "base" / "tokenizer" / "tokenizer.json"
    path.write_text("")
    with pytest.raises(
        UserError, match=rf"^{path}: not valid JSON .*; copy the files of a checkpoint's folder `model`"
    ):
        train(*arguments)


def test_copies_of_checkpoints_by_hand_are_left_alone(conf, datadir, tmp_path, monkeypatch, capsys):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), ["train.save_every=1"]]
    train_until(monkeypatch, 3, *arguments)
    folder = tmp_path / "base" / "checkpoints"
    for name in ("step-00000001-copy", "step-old"):
        (folder / name).mkdir()
    (folder / "step-00000001-copy" / "COMPLETE").write_text("{}")
    (folder / "step-00000009.tar").write_text("")
    train(*arguments)
    assert f"resuming from {folder / 'step-00000002'}" in capsys.readouterr().out
    assert {"step-00000001-copy", "step-old", "step-00000009.tar"} < {path.name for path in folder.iterdir()}


# Inputs


def own_data(datadir: Path, folder: Path) -> Path:
    """Copy the manifests, which share the audio."""
    folder.mkdir()
    for name in ("base.jsonl.gz", "dev.jsonl.gz", "corpus.json"):
        (folder / name).write_bytes((datadir / name).read_bytes())
    return folder


def change_text(path: Path) -> None:
    cuts = list(CutSet.from_file(path))
    cuts[0].supervisions[0].text = "another text"
    CutSet.from_cuts(cuts).to_file(path)


def test_run_json_records_the_inputs(trained, datadir):
    inputs = json.loads((trained / "base" / "run.json").read_text())["inputs"]
    assert inputs["data"]["path"] == str(datadir / "base.jsonl.gz") and len(inputs["data"]["sha256"]) == 64
    assert inputs["parent"] is None and inputs["teacher"] is None


@pytest.mark.parametrize(("name", "key"), [("base.jsonl.gz", "data.train"), ("dev.jsonl.gz", "data.dev")])
def test_changed_manifest_is_refused_at_resume_and_named(conf, datadir, tmp_path, monkeypatch, name, key):
    data = own_data(datadir, tmp_path / "data")
    changes = ["train.save_every=1", f"tokenizer.text={datadir}/base.jsonl.gz"]
    arguments = [str(conf), "base", str(tmp_path), str(data), changes]
    train_until(monkeypatch, 3, *arguments)
    before = (data / name).read_bytes()
    change_text(data / name)
    with pytest.raises(UserError, match=f"{tmp_path / 'base'}: inputs have changed .*: {key} {data / name} .*restore"):
        train(*arguments)
    (data / name).write_bytes(before)
    train(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True])
def test_retrained_base_and_teacher_are_noticed(conf, trained, datadir, tmp_path, monkeypatch, capsys, finished):
    for run in ("base", "teacher"):
        target = tmp_path / run / "final"
        target.mkdir(parents=True)
        for path in (trained / run / "final").iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    arguments = [str(conf), "base_opd", str(tmp_path), str(datadir), ["train.save_every=1", "train.steps=3"]]
    if finished:
        train(*arguments)
    else:
        train_until(monkeypatch, 3, *arguments)
    for run in ("base", "teacher"):
        path = tmp_path / run / "final" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    if finished:
        capsys.readouterr()
        train(*arguments)
        told = capsys.readouterr().out
        assert "already trained, but inputs have changed since then" in told and "nothing to do" in told
    else:
        with pytest.raises(UserError, match="inputs have changed since this run was started") as failure:
            train(*arguments)
        told = str(failure.value)
    assert f"model.path {tmp_path}/base/final (other weights: the run was trained from an earlier base)" in told
    assert "weights in teacher.options.path" in told


def test_record_of_an_earlier_version_gets_the_inputs(conf, datadir, tmp_path, monkeypatch, capsys):
    arguments = [str(conf), "base", str(tmp_path), str(datadir), ["train.save_every=1"]]
    train_until(monkeypatch, 3, *arguments)
    path = tmp_path / "base" / "run.json"
    record = json.loads(path.read_text())
    inputs = record.pop("inputs")
    path.write_text(json.dumps(record))
    train(*arguments)
    assert "written by an earlier version" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["inputs"] == inputs and all(found[key] == value for key, value in record.items())


# More steps


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_finished_run_continues_with_more_steps(conf, datadir, tmp_path, capsys, schedule):
    """Weights and rows equal those of one run if the learning rate does not depend on the total (constant)."""
    changes = [f"optim.schedule={schedule}", "train.eval_every=0", "train.save_every=0"]
    train(str(conf), "base", str(tmp_path / "whole"), str(datadir), ["train.steps=6", *changes])
    arguments = [str(conf), "base", str(tmp_path / "parts"), str(datadir)]
    train(*arguments, ["train.steps=4", *changes])
    capsys.readouterr()
    train(*arguments, ["train.steps=6", *changes])
    told = capsys.readouterr().out
    folder = tmp_path / "parts" / "base"
    assert "train.steps raised from 4 to 6; the model of step 4 is now final-00000004" in told
    assert "resuming from" in told and "(step 4)" in told
    rows = [metrics(path / "base") for path in (tmp_path / "whole", tmp_path / "parts")]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4, 5, 6]
    rates = [[row["learning_rate"] for row in part] for part in rows]
    assert rates[0][4:] == rates[1][4:]  # after the extension, the rate is that of a run with 6 steps from the start
    weights = [
        (path / "base" / "final" / "model.safetensors").read_bytes()
        for path in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert (weights[0] == weights[1]) == (schedule == "constant")
    assert (folder / "final-00000004" / "config.json").is_file()
    with pytest.raises(UserError, match="`train.steps` cannot be lowered from 6 to 5; keep or raise it"):
        train(*arguments, ["train.steps=5", *changes])


def test_more_steps_without_a_checkpoint_are_refused(conf, datadir, tmp_path):
    """Otherwise the run would start from step 0 without a word."""
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    train(*arguments, ["train.steps=1"])
    shutil.rmtree(tmp_path / "base" / "checkpoints")
    with pytest.raises(UserError, match="train.steps raised from 1 to 2, but there is no checkpoint to continue from"):
        train(*arguments, ["train.steps=2"])
    assert (tmp_path / "base" / "final" / "config.json").is_file()
    train(*arguments, ["train.steps=1"])


def test_settings_of_a_run_without_training_may_change(conf, datadir, tmp_path):
    for seed in (0, 1):
        tiny_student(seed).save(tmp_path / f"student-{seed}")

    def copy(seed, *words):
        words = ["objective=none", f"model.path={tmp_path}/student-{seed}", *words]
        train(str(conf), "base", str(tmp_path / "exp"), str(datadir), words)
        weights = tmp_path / "exp/base/final/model.safetensors"
        return (weights.stat().st_mtime_ns, weights.read_bytes()), read_config(tmp_path / "exp/base/config.yaml")

    first, config = copy(0)
    kept, config = copy(0, "mapper.name=shared_strings")
    assert kept == first and config.mapper.name == "shared_strings"
    replaced, config = copy(1)
    assert replaced[1] != first[1] and config.model.path.endswith("student-1")
    record = json.loads((tmp_path / "exp/base/run.json").read_text())
    assert record["inputs"]["parent"]["path"].endswith("student-1")
    with pytest.raises(UserError, match=r"other settings \(.*objective"):
        train(str(conf), "base", str(tmp_path / "exp"), str(datadir), ["objective=sft"])
    assert (tmp_path / "exp/base/final/model.safetensors").is_file()


def test_warning_if_the_command_replaces_the_run_that_a_run_continues(conf, datadir, tmp_path, capsys):
    tiny_student().save(tmp_path / "student")
    words = ["objective=none", f"model.path={tmp_path}/student"]
    train(str(conf), "base", str(tmp_path / "exp"), str(datadir), words)  # continues no other run
    assert "warning:" not in capsys.readouterr().out
    train(str(conf), "base_td_opd", str(tmp_path / "exp"), str(datadir), words)
    output = capsys.readouterr().out
    assert f"base_td_opd starts from {tmp_path}/student, as the command says, and not from" in output
    assert f"{tmp_path}/exp/base_td/final" in output
