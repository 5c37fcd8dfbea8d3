"""Two ranks with gloo compared with one process: losses, weights and files.

One launch runs all cases, and the tests check its results.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from corpus_fixture import clips, make_trainer, metrics
from forked_ranks import Forked
from safetensors.torch import load_file
from tiny_teachers import glm
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.optim.lr_scheduler import LambdaLR

from arkasr.cli import main
from arkasr.model.checkpoint_files import load_checkpoint
from arkasr.model.loading import load_speech_lm
from arkasr.plugins import registry
from arkasr.training.ranks import Ranks
from arkasr.training.train import Trainer, train

PAIRS = [(0, 1), (2, 3), (4, 5), (6, None)]  # clips of rank 0 and 1 per step, None for an unreadable clip
CUT_OFF = ["train.steps=6", "train.save_every=2", "train.eval_clips=1"]  # only one of the ranks has a dev clip
SUMS = [  # sums of rank 0 and rank 1: equal names, names of one rank only, maxima of one rank only, no names
    ({"b": 1.0, "a": 2.0}, {"a": 10.0, "b": 20.0}),
    ({"kl/language_English": 1.0, "n": 2.0}, {"kl/language_Chinese": 4.0, "n": 8.0}),
    ({"n": 1.0, "vuss_max": 5.0, "neg_vuss_min": -2.0}, {"n": 1.0, "vuss_max": 4.0, "neg_vuss_min": -1.0}),
    ({"n": 1.0}, {"n": 1.0, "vuss_max": 4.0}),
    ({}, {"n": 3.0}),
]
REDUCED = [
    {"a": 12.0, "b": 21.0},
    {"kl/language_English": 1.0, "kl/language_Chinese": 4.0, "n": 10.0},
    {"n": 2.0, "vuss_max": 5.0, "neg_vuss_min": -1.0},
    {"n": 2.0, "vuss_max": 4.0},
    {"n": 3.0},
]
OPD = ["train.eval_clips=1", "distill.diagnose_every=2", "distill.mix={student: 1, reference: 1}"]
OPD += ["rollout.temperature=1.0", "rollout.samples=2", "rollout.empty=skip", "rollout.looping=skip"]
FROZEN = ["train.steps=2", "train.eval_every=0", "model.freeze=[encoder]", "model.path={trained}/base/final"]
FROZEN += ["teacher.options.path={trained}/teacher/final"]
LORA = [*FROZEN[:2], *FROZEN[3:], "model.lora.rank=3", "model.lora.encoder=true"]
LORA += ["fsdp.activation_checkpointing=blocks", "model.lora.dropout=0.2"]
OPTIONS = ["train.steps=6", "train.save_every=2", "train.eval_every=2", "train.average=2", "train.keep=9"]
OPTIONS += ["train.frozen_steps={encoder: 3}", "optim.lr_scale={encoder: 0.5, adapter: 2}", "model.dropout=0.3"]
OTHERS = {"qwen3_asr": "teacher/final", "glmasr": "glm"}  # type of the student, folder of the model it starts from
LONELY = "import arkasr\n\n@arkasr.hookimpl\ndef register_losses(register):\n    register('lonely', list)\n"
pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo"),
]


def stepped(trainer: Trainer, stream) -> dict:
    """Take one step of plain SGD per pair of clips: AdamW would amplify rounding differences."""
    trainer.optimizer = torch.optim.SGD(trainer.student.parameters(), lr=0.05)
    trainer.schedule = LambdaLR(trainer.optimizer, lambda step: 1.0)
    rows = [trainer.take_step(stream) for _ in PAIRS]
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return {"rows": rows, "weights": get_model_state_dict(trainer.student, options=options)}


def student_of_type(name: str, models: Path) -> list[str]:
    """Return the overrides of a student of another type, whose teacher is the trained Ark-ASR."""
    teacher = ["teacher.name=arkasr", f"teacher.options.path={models}/base/final", "teacher.options.dtype=float32"]
    return [f"model.type={name}", f"model.path={models / OTHERS[name]}", *teacher]


def measured(row: dict[str, float]) -> dict[str, float]:
    """Return the metrics of a step without times and memory."""
    return {name: value for name, value in row.items() if not name.startswith(("time/", "memory/"))}


def clip(datadir: Path, place: int | None):
    return clips(datadir / "train.jsonl.gz", [] if place is None else [place])


class Killed(BaseException):
    """Simulates a kill: no code of arkasr catches it."""


def cut_off(self, batches, take_step=Trainer.take_step):
    """Take one step, but raise `Killed` before the sixth."""
    if self.step == 5:
        raise Killed
    return take_step(self, batches)


def refused(conf: Path, expdir: Path, datadir: Path, rank: int) -> tuple[int, str]:
    """Start a training with a plugin that only rank 1 has. Return the exit status and the message."""
    site = expdir.with_name(f"site-{rank}")
    if rank == 1:
        (site / "lonely-1.0.dist-info").mkdir(parents=True)
        (site / "lonely-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lonely\nVersion: 1.0\n")
        (site / "lonely-1.0.dist-info" / "entry_points.txt").write_text("[arkasr]\nlonely = lonely\n")
        (site / "lonely.py").write_text(LONELY)
    sys.path.insert(0, str(site))
    registry._load.cache_clear()
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        status = main(["train", str(conf), "--run", "base", "--expdir", str(expdir), "--datadir", str(datadir)])
    sys.path.remove(str(site))
    registry._load.cache_clear()
    return status, printed.getvalue()


def worker(conf: Path, datadir: Path, expdir: Path) -> None:
    """Run everything that the tests check, on each rank."""
    rank = int(os.environ["RANK"])
    stream = (clip(datadir, pair[rank]) for pair in PAIRS)
    trainer = make_trainer(conf, "base", expdir / "pairs", datadir)
    (expdir / f"sums-{rank}.json").write_text(json.dumps([trainer.ranks.reduce(sums[rank]) for sums in SUMS]))
    with torch.random.fork_rng():
        (expdir / f"drawn-{rank}.json").write_text(json.dumps(torch.rand(4).tolist()))
    result = stepped(trainer, stream)
    if rank == 0:
        torch.save(result, expdir / "pairs.pt")
    for name in OTHERS:
        pairs = (clip(datadir, pair[rank]) for pair in PAIRS)
        words = student_of_type(name, expdir)
        result = stepped(make_trainer(conf, "base_opd", expdir / name, datadir, *words), pairs)
        if rank == 0:
            torch.save(result, expdir / f"{name}.pt")
    # Use one process group for all runs: a second one would read the addresses of the first from the store.
    dist.init_process_group, Ranks.close = lambda *arguments, **options: None, lambda ranks: None
    train(str(conf), "base_opd", str(expdir), str(datadir), OPD)
    (expdir / f"refused-{rank}.json").write_text(json.dumps(refused(conf, expdir / "unequal", datadir, rank)))
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        words = ["train", str(conf), "--run", "base_opd", "--expdir", str(expdir), "--datadir", str(datadir), *OPD]
        status = main([*words, "optim.lr=0.5"])
    (expdir / f"changed-{rank}.json").write_text(json.dumps([status, printed.getvalue()]))
    overrides = [words.format(trained=expdir) for words in FROZEN]
    train(str(conf), "base_opd", str(expdir / "frozen"), str(datadir), overrides)
    train(str(conf), "base_opd", str(expdir / "lora"), str(datadir), [word.format(trained=expdir) for word in LORA])
    options = str(conf), "base", str(expdir / "options"), str(datadir), OPTIONS
    train(*options)
    take_step, Trainer.take_step = Trainer.take_step, cut_off
    with contextlib.suppress(Killed):
        train(*options[:2], str(expdir / "options-cut"), *options[3:])
    Trainer.take_step = take_step
    train(*options[:2], str(expdir / "options-cut"), *options[3:])
    Trainer.take_step = cut_off
    with contextlib.suppress(Killed):
        train(str(conf), "base", str(expdir / "cut"), str(datadir), CUT_OFF)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def expdir(conf, trained, datadir, tmp_path_factory):
    """Run the worker on two ranks and return its experiment directory."""
    folder = tmp_path_factory.mktemp("ranks")
    for run in ("teacher", "base"):
        (folder / run).symlink_to(trained / run)
    glm(5).save(folder / "glm")
    Forked(2, partial(worker, conf, datadir, folder), folder / "printed").succeed()
    return folder


def test_two_ranks_with_one_clip_each_match_one_rank_with_both_clips(expdir, conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.accumulate=2")
    alone = stepped(trainer, (clip(datadir, place) for pair in PAIRS for place in pair))
    together = torch.load(expdir / "pairs.pt", weights_only=False)
    for single, double in zip(alone["rows"], together["rows"], strict=True):
        assert measured(single) == pytest.approx(measured(double), rel=2e-4)
    assert [row["clips"] for row in together["rows"]] == [2, 2, 2, 1]
    assert alone["weights"].keys() == together["weights"].keys()
    torch.testing.assert_close(together["weights"], alone["weights"], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_two_ranks_distil_a_student_of_another_type_as_one_rank_does(name, expdir, conf, datadir, tmp_path):
    words = student_of_type(name, expdir)
    trainer = make_trainer(conf, "base_opd", tmp_path, datadir, *words, "train.accumulate=2")
    alone = stepped(trainer, (clip(datadir, place) for pair in PAIRS for place in pair))
    together = torch.load(expdir / f"{name}.pt", weights_only=False)
    for single, double in zip(alone["rows"], together["rows"], strict=True):
        assert measured(single) == pytest.approx(measured(double), rel=1e-3, abs=1e-5)
    torch.testing.assert_close(together["weights"], alone["weights"], rtol=1e-3, atol=1e-4)
    start = load_speech_lm(str(expdir / OTHERS[name])).state_dict()
    assert any(not torch.equal(start[key], value) for key, value in together["weights"].items())


def test_reduce_accepts_different_names_per_rank(expdir):
    for rank in range(2):
        assert json.loads((expdir / f"sums-{rank}.json").read_text()) == REDUCED


def test_ranks_with_different_plugins_all_end_with_the_reason(expdir):
    """No rank waits for the other, nothing is written, and the ranks can train together afterwards."""
    for rank, where in enumerate(("", " (rank 1)")):
        status, printed = json.loads((expdir / f"refused-{rank}.json").read_text())
        reason = "the ranks of this run have different plugins; compare the output of `arkasr plugins` on all machines"
        assert (status, printed) == (2, f"arkasr train: error: {reason}{where}\n")
    assert not (expdir / "unequal").exists()


def test_ranks_with_changed_settings_all_end_with_the_reason(expdir):
    for rank in range(2):
        status, printed = json.loads((expdir / f"changed-{rank}.json").read_text())
        assert status == 2 and "this run was started with other settings (optim.lr)" in printed
        assert len(printed.splitlines()) == 1


def test_ranks_draw_different_random_numbers(expdir):
    first, second = (json.loads((expdir / f"drawn-{rank}.json").read_text()) for rank in range(2))
    assert not set(first) & set(second)


def test_distillation_on_two_ranks_writes_the_same_files_as_one_process(expdir, conf, trained, datadir, tmp_path):
    folder = expdir / "base_opd"
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    train(str(conf), "base_opd", str(tmp_path), str(datadir), overrides)
    single, double = (load_file(path / "final" / "model.safetensors") for path in (tmp_path / "base_opd", folder))
    single_types, double_types = ({n: (t.shape, t.dtype) for n, t in w.items()} for w in (single, double))
    assert single_types == double_types
    start = load_file(trained / "base" / "final" / "model.safetensors")
    assert any(not torch.equal(double[name], start[name]) for name in start)
    assert sorted(p.name for p in (folder / "final").iterdir()) == sorted(
        p.name for p in (tmp_path / "base_opd" / "final").iterdir()
    )
    load_speech_lm(str(folder / "final"))


def test_two_ranks_do_not_change_a_frozen_encoder(expdir, trained):
    start = load_file(trained / "base" / "final" / "model.safetensors")
    found = load_file(expdir / "frozen" / "base_opd" / "final" / "model.safetensors")
    encoder = {name for name in start if "audio_tower." in name}
    assert encoder and start.keys() == found.keys()
    assert {name for name in start if torch.equal(found[name], start[name])} == encoder


def test_two_ranks_train_adapters_and_merge_them(expdir, trained):
    run = expdir / "lora" / "base_opd"
    start, final = (load_file(folder / "final" / "model.safetensors") for folder in (trained / "base", run))
    changed = {name for name in start if not torch.equal(start[name], final[name])}
    linear = re.compile(r".*\.layers\.\d+\..*(proj|fc1|fc2)\.weight|.*multi_modal_projector.*")
    assert changed and changed == {name for name in start if linear.fullmatch(name)}
    merged = load_speech_lm(str(run / "final" / "adapter")).hf.state_dict()  # by PEFT, in one process
    for name, value in final.items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-6)
    checkpoint = load_checkpoint(run / "checkpoints" / "step-00000002").hf.state_dict()
    assert all(torch.equal(checkpoint[name], value) for name, value in final.items())


def whole(checkpoint: Path, file: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a sharded checkpoint with torch's converter."""
    dcp_to_torch_save(checkpoint / "weights", file)
    return torch.load(file)["model"]


def test_two_ranks_average_sharded_checkpoints_and_keep_the_head(expdir, tmp_path):
    run = expdir / "options" / "base"
    steps = [whole(run / "checkpoints" / f"step-{n:08d}", tmp_path / f"{n}.pt") for n in (4, 6)]
    final = {f"hf.{name}": value for name, value in load_file(run / "final" / "model.safetensors").items()}
    head = load_file(run / "final" / "ctc_head.safetensors")
    for name, value in (final | {f"ctc_head.{name}": value for name, value in head.items()}).items():
        mean = (steps[0][name].double() + steps[1][name].double()) / 2
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-8, msg=name)
    assert all(row["dev_error_ctc"] >= 0 for row in metrics(run) if "dev_error" in row)


def test_two_ranks_freeze_the_encoder_in_the_first_steps(expdir, tmp_path):
    run = expdir / "options" / "base"
    steps = {n: whole(run / "checkpoints" / f"step-{n:08d}", tmp_path / f"{n}.pt") for n in (2, 4, 6)}
    tower = [name for name in steps[2] if "audio_tower" in name]
    assert tower and not any(torch.equal(steps[2][name], steps[4][name]) for name in tower)
    optim = {n: dcp_to_torch_save(run / "checkpoints" / f"step-{n:08d}" / "weights", tmp_path / "o.pt") or torch.load(
        tmp_path / "o.pt", weights_only=False)["optim"]["state"] for n in (2, 4)}  # fmt: skip
    for n, updates in ((2, 0), (4, 1)):
        assert {float(optim[n][name]["step"]) for name in tower} == {updates}
        assert {float(optim[n][name]["step"]) for name in optim[n] if "language_model" in name} == {n}


def test_two_ranks_resume_with_all_options_exactly(expdir):
    runs = [expdir / name / "base" for name in ("options", "options-cut")]
    weights = [load_file(run / "final" / "model.safetensors") for run in runs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    rows = [[{k: v for k, v in measured(row).items() if "per_second" not in k} for row in metrics(run)] for run in runs]
    assert rows[0] == rows[1] and len(rows[0]) == 6


def test_rank_0_logs_counts_of_both_ranks(expdir):
    folder = expdir / "base_opd"
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert max(row["clips"] for row in rows) > 3  # more than the batch of one rank holds
    assert [row["step"] for row in rows if "kl/all" in row] == [2, 4]
    assert all(row["loss"] >= 0 and row["vuss_min"] <= row["vuss"] <= row["vuss_max"] for row in rows)
    assert [row["step"] for row in rows if "dev_error" in row] == [2, 4]
    assert json.loads((folder / "run.json").read_text())["world_size"] == 2
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_checkpoint_holds_files_of_both_ranks(expdir):
    folder = expdir / "cut" / "base" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000002", "step-00000004"]
    for checkpoint in folder.iterdir():
        assert {"COMPLETE", "state.json", "rng-00000.json", "rng-00001.json", "model", "weights"} == {
            p.name for p in checkpoint.iterdir()
        }
        assert {p.name for p in (checkpoint / "weights").glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}


def test_load_checkpoint_reads_checkpoint_of_two_ranks_in_one_process(expdir, tmp_path):
    checkpoint = expdir / "cut" / "base" / "checkpoints" / "step-00000002"
    dcp_to_torch_save(checkpoint / "weights", tmp_path / "whole.pt")
    expected = torch.load(tmp_path / "whole.pt")["model"]
    lm = load_checkpoint(checkpoint)
    found = {f"hf.{name}": weight for name, weight in lm.hf.state_dict().items()}
    assert found.keys() == {name for name in expected if name.startswith("hf.")}  # without the CTC head
    assert all(torch.equal(found[name], expected[name]) for name in found) and not lm.training
    assert not dist.is_initialized()


def test_one_process_resumes_run_of_two_ranks(expdir, conf, datadir, capsys):
    train(str(conf), "base", str(expdir / "cut"), str(datadir), CUT_OFF)
    folder = expdir / "cut" / "base"
    assert f"resuming from {folder / 'checkpoints' / 'step-00000004'} (step 4)" in capsys.readouterr().out
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4, 5, 6]
    state = json.loads((folder / "checkpoints" / "step-00000004" / "state.json").read_text())
    assert state["batches"]["world_size"] == 2
    load_speech_lm(str(folder / "final"))
