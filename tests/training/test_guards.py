"""What is skipped, and whose clips are named; two ranks judge alike. This file is its own worker: torchrun starts it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from corpus_fixture import clips, make_trainer, metrics

from arkasr.config.load import load_config
from arkasr.config.schema import TrainConfig
from arkasr.data.batches import Batch
from arkasr.distill import rollout as rollout_module
from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.training.guards import LEAST, WINDOW, Guards
from arkasr.training.ranks import Ranks
from arkasr.training.train import Trainer

ROOT = Path(__file__).parents[2]


def guards(folder: Path, **settings) -> Guards:
    return Guards(folder, Ranks(), TrainConfig(**settings))


def spikes(folder: Path) -> list[dict]:
    path = folder / "spikes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize(
    ("loss", "norm", "count", "taken"),
    [(1.0, 2.0, 3, True), (math.nan, 2.0, 3, False), (-math.inf, 2.0, 3, False), (1.0, math.inf, 3, False)]
    + [(1.0, math.nan, 3, False), (0.0, 0.0, 0, False)],
)  # fmt: skip
def test_a_step_is_taken_where_loss_and_gradient_are_finite_and_something_counts(tmp_path, loss, norm, count, taken):
    made = guards(tmp_path)
    assert made.allow(1, loss, count, norm, ["a"]) is taken
    assert (made.skipped, made.in_a_row) == ((0, 0) if taken else (1, 1))
    assert len(spikes(tmp_path)) == (0 if taken or not count else 1)


def test_skipped_steps_end_the_run_when_enough_follow_each_other(tmp_path):
    made = guards(tmp_path, max_skipped=3)
    for step, loss in enumerate([math.nan, math.nan, 1.0, math.nan, math.nan]):
        made.allow(step, loss, 1.0, 1.0, [])
    assert (made.skipped, made.in_a_row) == (4, 2)
    with pytest.raises(UserError, match=f"{tmp_path}: 3 steps in a row could not be taken"):
        made.allow(5, math.nan, 1.0, 1.0, [])


def fed(made: Guards, norms: list[float], start: int = 1) -> None:
    for step, norm in enumerate(norms, start):
        made.allow(step, 1.0, 1.0, norm, [f"clip-{step}"])


def test_a_norm_far_above_the_late_ones_names_its_clips_and_is_taken(tmp_path, capsys):
    made = guards(tmp_path, spike_factor=4.0)
    fed(made, [1000.0, *[1.0, 2.0, 3.0] * 7])  # median 2: the first, early and large one, moves it by nothing
    assert spikes(tmp_path) == []
    fed(made, [8.0, 8.5], 50)
    (row,) = spikes(tmp_path)
    assert row == {"step": 51, "gradient_norm": 8.5, "usual_norm": 2.0, "loss_sum": 1.0, "clips": [["clip-51"]]}
    assert (
        made.skipped == 0 and "step 51: gradient norm 8.5, 2 of late; its 1 clips stand in" in capsys.readouterr().out
    )


def test_nothing_is_a_spike_before_enough_norms_are_known_nor_without_a_factor(tmp_path):
    made = guards(tmp_path / "early")
    fed(made, [1.0] * (LEAST - 1) + [1e6])
    never = guards(tmp_path / "never", spike_factor=0.0)
    fed(never, [1.0] * LEAST + [1e6])
    assert not spikes(tmp_path / "early") and not spikes(tmp_path / "never")


def test_old_norms_are_forgotten(tmp_path):
    made = guards(tmp_path, spike_factor=4.0)
    fed(made, [1.0] * WINDOW + [4.0] * WINDOW)  # none is above four times the median of those before it
    fed(made, [15.0], 1000)
    assert spikes(tmp_path) == []


def test_what_was_known_is_known_after_a_pause_and_spikes_to_come_again_are_dropped(tmp_path):
    made = guards(tmp_path)
    fed(made, [0.1, 1 / 3] * 15 + [50.0])
    state = json.loads(json.dumps(made.state_dict()))
    fed(made, [60.0], 40)
    with (tmp_path / "spikes.jsonl").open("a") as file:
        file.write('{"step": 41, "gra')
    other = guards(tmp_path)
    other.load_state_dict(state)
    other.forget_after(31)
    assert [row["step"] for row in spikes(tmp_path)] == [31]
    fed(other, [60.0], 40)
    assert (other.norms, other.norms.maxlen) == (made.norms, WINDOW)
    assert [(row["step"], row["usual_norm"]) for row in spikes(tmp_path)] == [(31, 13 / 60), (40, 1 / 3)]


def spoilt(batch: Batch) -> Batch:
    batch.waveforms[0] = torch.full_like(batch.waveforms[0], 1e30)
    return batch


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_the_clips_of_all_batches_of_a_step_are_named(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.accumulate=2")
    cuts = datadir / "train.jsonl.gz"
    trainer.take_step(iter([clips(cuts, [0, 1]), spoilt(clips(cuts, [2]))]))
    (row,) = spikes(tmp_path / "base")
    assert row["clips"] == [["train-00", "train-01", "train-02"]] and row["gradient_norm"] is None


# Two ranks


def weights_of(trainer: Trainer) -> float:
    weights = torch.cat([p.detach().to_local().flatten() for p in trainer.student.parameters()])
    return float(weights.double().sum())


def worker(conf: Path, trained: Path, datadir: Path, expdir: Path) -> None:
    """Do on each rank what the tests look at, in one process group."""
    trainer = make_trainer(conf, "base", expdir, datadir)
    spoilt_steps(trainer, datadir, expdir)
    overrides = [*OPD, f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    config = load_config(conf, "base_opd", str(expdir), str(datadir), overrides)
    (expdir / "base_opd").mkdir(exist_ok=True)
    distilled(Trainer(config, expdir / "base_opd", trainer.ranks), expdir)
    trainer.ranks.close()


def spoilt_steps(trainer: Trainer, datadir: Path, expdir: Path) -> None:
    """Take four steps, of which rank 1 spoils the second by its audio, and the third by its loss alone."""
    rank = trainer.ranks.rank
    cuts, made = datadir / "train.jsonl.gz", []
    for step in range(4):
        batch = clips(cuts, [2 * step + rank])
        if rank == 1 and step == 1:
            batch = spoilt(batch)
        objective = trainer.objective
        if rank == 1 and step == 2:
            trainer.objective = _LossOnly(objective)
        row = trainer.take_step(iter([batch]))
        trainer.objective, trainer.step = objective, step + 1
        made.append({"skipped": row["skipped_steps"], "norm": row["gradient_norm"], "weights": weights_of(trainer)})
    (expdir / f"made-{rank}.json").write_text(json.dumps(made))


class _LossOnly:
    """An objective whose loss is infinite and whose gradient is not."""

    def __init__(self, objective):
        self.objective, self.rates = objective, objective.rates

    def __call__(self, *arguments):
        micro = self.objective(*arguments)
        micro.total = micro.total + math.inf
        return micro


CASES = [  # of a distillation, a step each: what rank 0 meets, and rank 1; else the teacher answers all the same number
    ("fine", "fine"),
    ("fine", math.nan),
    (-math.inf, "fine"),
    ("fine", math.inf),
    (math.nan, math.nan),
    (-math.inf, -math.inf),
    (math.inf, math.nan),
    ("fine", "fine"),
    ("fine", "unscored"),
    ("unscored", "unscored"),
    (math.nan, "unscored"),
    ("fine", "fine"),
]
OPD = [f"train.steps={len(CASES)}", "train.save_every=5", f"train.eval_every={len(CASES)}", "train.spike_factor=0"]
OPD += ["distill.diagnose_every=2"]


class _Meeting:
    """An objective that lets this rank meet its case of every step, and notes what it found.

    unscored: every rollout is called looping and skipped.
    """

    def __init__(self, trainer: Trainer):
        self.trainer, self.objective, self.rates = trainer, trainer.objective, trainer.objective.rates
        self.teacher, self.made = trainer.objective.opd.teacher, []

    def __call__(self, student, batch, phases, step):
        case, opd, before = CASES[step - 1][self.trainer.ranks.rank], self.objective.opd, weights_of(self.trainer)
        opd.teacher = _Spoilt(self.teacher, case) if isinstance(case, float) else self.teacher
        policy = "skip" if case == "unscored" else "score"
        opd.rollout = replace(opd.rollout, empty=policy, looping=policy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rollout_module, "is_looping", lambda *arguments: case == "unscored")
            micro = self.objective(student, batch, phases, step)
        self.made.append({"count": micro.count, "loss": float(micro.total.detach()), "weights": before})
        return micro


class _Spoilt:
    """A teacher all of whose scores are one number."""

    def __init__(self, teacher, number: float):
        self.teacher, self.number = teacher, number

    def __getattr__(self, name):
        return getattr(self.teacher, name)

    def score(self, *arguments):
        scored = self.teacher.score(*arguments)
        return DenseView(torch.full_like(scored.logits, self.number))


def distilled(trainer: Trainer, expdir: Path) -> None:
    """Run a distillation to its end, with a case a step."""
    meeting = trainer.objective = _Meeting(trainer)
    assert trainer.run()
    made = [*meeting.made, {"weights": weights_of(trainer)}]
    (expdir / f"distilled-{trainer.ranks.rank}.json").write_text(json.dumps(made))


@pytest.fixture(scope="module")
def two_ranks(conf, trained, datadir, tmp_path_factory) -> Path:
    """Run the worker on two ranks and return its folder."""
    if not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("guards")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    words = [*launch, str(conf), str(trained), str(datadir), str(folder)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_what_one_rank_spoils_is_skipped_on_all(two_ranks):
    for rank in range(2):
        made = json.loads((two_ranks / f"made-{rank}.json").read_text())
        assert [row["skipped"] for row in made] == [0, 1, 2, 2]
        assert made[0]["weights"] == made[1]["weights"] == made[2]["weights"] != made[3]["weights"]
        assert math.isnan(made[1]["norm"]) and math.isfinite(made[2]["norm"])


def test_the_clips_of_all_ranks_are_named(two_ranks):
    rows = spikes(two_ranks / "base")
    assert [(row["step"], row["clips"]) for row in rows] == [
        (2, [["train-02"], ["train-03"]]),
        (3, [["train-04"], ["train-05"]]),
    ]


def test_a_distillation_skips_steps_of_which_no_rank_scored_anything_and_goes_on(two_ranks):
    ours, theirs = (json.loads((two_ranks / f"distilled-{rank}.json").read_text()) for rank in range(2))
    rows = metrics(two_ranks / "base_opd")
    assert [row["step"] for row in rows] == [*range(1, len(CASES) + 1)] and "dev_error" in rows[-1]
    skipped = 0
    for step, (case, row) in enumerate(zip(CASES, rows, strict=True)):
        counts, losses = ([rank[step][key] for rank in (ours, theirs)] for key in ("count", "loss"))
        assert [count > 0 for count in counts] == [what == "fine" for what in case]
        taken = "fine" in case
        skipped += not taken
        assert row["tokens"] == sum(counts) and row["skipped_steps"] == skipped
        assert row["loss"] == pytest.approx(sum(losses) / max(1, sum(counts))) and math.isfinite(row["gradient_norm"])
        assert (row["gradient_norm"] > 0) is taken
        for rank in (ours, theirs):  # each holds its own shard
            assert (rank[step]["weights"] != rank[step + 1]["weights"]) is taken
    assert skipped == 5


def test_what_is_not_finite_is_not_logged_of_a_distillation(two_ranks):
    for row in metrics(two_ranks / "base_opd"):
        assert all(math.isfinite(value) for value in row.values()), row
    assert spikes(two_ranks / "base_opd") == []


if __name__ == "__main__":
    worker(*map(Path, sys.argv[1:]))
