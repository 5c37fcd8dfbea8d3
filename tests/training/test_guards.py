"""Guards: which steps are skipped, which clips are recorded, and that two ranks decide alike."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from corpus_fixture import clips, make_trainer, metrics
from forked_ranks import Forked

from arkasr.config.load import load_config
from arkasr.config.schema import TrainConfig
from arkasr.data.batches import Batch
from arkasr.distill import rollout as rollout_module
from arkasr.distributions.views import DenseView
from arkasr.errors import UserError
from arkasr.training.guards import MIN_NORMS, WINDOW, Guards
from arkasr.training.ranks import Ranks
from arkasr.training.train import Trainer


def guards(folder: Path, **settings) -> Guards:
    return Guards(folder, Ranks(), TrainConfig(**settings))


def spikes(folder: Path) -> list[dict]:
    path = folder / "spikes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize(
    ("loss", "norm", "count", "taken"),
    [
        (1.0, 2.0, 3, True),
        (math.nan, 2.0, 3, False),
        (-math.inf, 2.0, 3, False),
        (1.0, math.inf, 3, False),
        (1.0, math.nan, 3, False),
        (0.0, 0.0, 0, False),
    ],
)
def test_allow_requires_finite_loss_and_norm_and_positive_count(tmp_path, loss, norm, count, taken):
    tested = guards(tmp_path)
    assert tested.allow(1, loss, count, norm, ["a"]) is taken
    assert (tested.skipped, tested.in_a_row) == ((0, 0) if taken else (1, 1))
    assert len(spikes(tmp_path)) == (0 if taken or not count else 1)


def test_allow_ends_the_run_after_max_skipped_steps_in_a_row(tmp_path):
    tested = guards(tmp_path, max_skipped=3)
    for step, loss in enumerate([math.nan, math.nan, 1.0, math.nan, math.nan]):
        tested.allow(step, loss, 1.0, 1.0, [])
    assert (tested.skipped, tested.in_a_row) == (4, 2)
    with pytest.raises(UserError, match=f"{tmp_path}: 3 steps in a row were skipped"):
        tested.allow(5, math.nan, 1.0, 1.0, [])


def feed(tested: Guards, norms: list[float], start: int = 1) -> None:
    for step, norm in enumerate(norms, start):
        tested.allow(step, 1.0, 1.0, norm, [f"clip-{step}"])


def test_allow_records_clips_of_spike_and_takes_the_step(tmp_path, capsys):
    tested = guards(tmp_path, spike_factor=4.0)
    feed(tested, [1000.0, *[1.0, 2.0, 3.0] * 7])  # the median is 2: the large first norm does not change it
    assert spikes(tmp_path) == []
    feed(tested, [8.0, 8.5], 50)
    (row,) = spikes(tmp_path)
    assert row == {"step": 51, "gradient_norm": 8.5, "median_norm": 2.0, "loss_sum": 1.0, "clips": [["clip-51"]]}
    assert tested.skipped == 0
    assert "step 51: gradient norm 8.5 (recent median 2); its 1 clips are listed in" in capsys.readouterr().out


def test_allow_records_no_spike_before_min_norms_or_without_factor(tmp_path):
    early = guards(tmp_path / "early")
    feed(early, [1.0] * (MIN_NORMS - 1) + [1e6])
    never = guards(tmp_path / "never", spike_factor=0.0)
    feed(never, [1.0] * MIN_NORMS + [1e6])
    assert not spikes(tmp_path / "early") and not spikes(tmp_path / "never")


def test_median_uses_last_norms_only(tmp_path):
    tested = guards(tmp_path, spike_factor=4.0)
    feed(tested, [1.0] * WINDOW + [4.0] * WINDOW)  # none exceeds four times the median of those before it
    feed(tested, [15.0], 1000)
    assert spikes(tmp_path) == []


def test_load_state_dict_restores_norms_and_forget_after_drops_later_spikes(tmp_path):
    tested = guards(tmp_path)
    feed(tested, [0.1, 1 / 3] * 15 + [50.0])
    state = json.loads(json.dumps(tested.state_dict()))
    feed(tested, [60.0], 40)
    with (tmp_path / "spikes.jsonl").open("a") as file:
        file.write('{"step": 41, "gra')
    other = guards(tmp_path)
    other.load_state_dict(state)
    other.forget_after(31)
    assert [row["step"] for row in spikes(tmp_path)] == [31]
    feed(other, [60.0], 40)
    assert (other.norms, other.norms.maxlen) == (tested.norms, WINDOW)
    assert [(row["step"], row["median_norm"]) for row in spikes(tmp_path)] == [(31, 13 / 60), (40, 1 / 3)]


def with_bad_audio(batch: Batch) -> Batch:
    """Make the first waveform so loud that loss and gradient overflow."""
    batch.waveforms[0] = torch.full_like(batch.waveforms[0], 1e30)
    return batch


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_spike_lists_clips_of_all_micro_batches(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir, "train.accumulate=2")
    cuts = datadir / "train.jsonl.gz"
    trainer.take_step(iter([clips(cuts, [0, 1]), with_bad_audio(clips(cuts, [2]))]))
    (row,) = spikes(tmp_path / "base")
    assert row["clips"] == [["train-00", "train-01", "train-02"]] and row["gradient_norm"] is None


# Two ranks


def weights_of(trainer: Trainer) -> float:
    weights = torch.cat([p.detach().to_local().flatten() for p in trainer.student.parameters()])
    return float(weights.double().sum())


def worker(conf: Path, trained: Path, datadir: Path, expdir: Path) -> None:
    """Run everything that the tests check, on each rank, in one process group."""
    trainer = make_trainer(conf, "base", expdir, datadir)
    supervised_steps(trainer, datadir, expdir)
    overrides = [*OPD, f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    config = load_config(conf, "base_opd", str(expdir), str(datadir), overrides)
    (expdir / "base_opd").mkdir(exist_ok=True)
    distillation_steps(Trainer(config, expdir / "base_opd", trainer.ranks), expdir)
    trainer.ranks.close()


def supervised_steps(trainer: Trainer, datadir: Path, expdir: Path) -> None:
    """Take four steps. On rank 1, the second has bad audio, and the third an infinite loss with a finite gradient."""
    rank = trainer.ranks.rank
    cuts, rows = datadir / "train.jsonl.gz", []
    for step in range(4):
        batch = clips(cuts, [2 * step + rank])
        if rank == 1 and step == 1:
            batch = with_bad_audio(batch)
        objective = trainer.objective
        if rank == 1 and step == 2:
            trainer.objective = _InfiniteLoss(objective)
        row = trainer.take_step(iter([batch]))
        trainer.objective, trainer.step = objective, step + 1
        rows.append({"skipped": row["skipped_steps"], "norm": row["gradient_norm"], "weights": weights_of(trainer)})
    (expdir / f"supervised-{rank}.json").write_text(json.dumps(rows))


class _InfiniteLoss:
    """An objective with an infinite loss and a finite gradient."""

    def __init__(self, objective):
        self.objective, self.rates = objective, objective.rates

    def __call__(self, *arguments):
        micro = self.objective(*arguments)
        micro.total = micro.total + math.inf
        return micro


# One distillation step each: the case of rank 0 and of rank 1. Numbers: all scores of the teacher have this value.
CASES = [
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


class _CaseObjective:
    """An objective that applies this rank's case at every step and records loss and weights.

    In the case "unscored" every rollout counts as looping and is skipped.
    """

    def __init__(self, trainer: Trainer):
        self.trainer, self.objective, self.rates = trainer, trainer.objective, trainer.objective.rates
        self.teacher, self.records = trainer.objective.opd.teacher, []

    def __call__(self, student, batch, phases, step):
        case, opd, before = CASES[step - 1][self.trainer.ranks.rank], self.objective.opd, weights_of(self.trainer)
        opd.teacher = _ConstantTeacher(self.teacher, case) if isinstance(case, float) else self.teacher
        policy = "skip" if case == "unscored" else "score"
        opd.rollout = replace(opd.rollout, empty=policy, looping=policy)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rollout_module, "is_looping", lambda *arguments: case == "unscored")
            micro = self.objective(student, batch, phases, step)
        self.records.append({"count": float(micro.count), "loss": float(micro.total.detach()), "weights": before})
        return micro


class _ConstantTeacher:
    """A teacher whose scores all have the same value."""

    def __init__(self, teacher, number: float):
        self.teacher, self.number = teacher, number

    def __getattr__(self, name):
        return getattr(self.teacher, name)

    def score(self, *arguments):
        scored = self.teacher.score(*arguments)
        return DenseView(torch.full_like(scored.logits, self.number))


def distillation_steps(trainer: Trainer, expdir: Path) -> None:
    """Run a distillation to its end, with one case per step."""
    objective = trainer.objective = _CaseObjective(trainer)
    assert trainer.run()
    records = [*objective.records, {"weights": weights_of(trainer)}]
    (expdir / f"distilled-{trainer.ranks.rank}.json").write_text(json.dumps(records))


@pytest.fixture(scope="module")
def two_ranks(conf, trained, datadir, tmp_path_factory) -> Path:
    """Run the worker on two ranks and return its folder."""
    if not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("guards")
    Forked(2, partial(worker, conf, trained, datadir, folder), folder / "printed").succeed()
    return folder


@pytest.mark.distributed
def test_bad_step_of_one_rank_is_skipped_on_all_ranks(two_ranks):
    for rank in range(2):
        rows = json.loads((two_ranks / f"supervised-{rank}.json").read_text())
        assert [row["skipped"] for row in rows] == [0, 1, 2, 2]
        assert rows[0]["weights"] == rows[1]["weights"] == rows[2]["weights"] != rows[3]["weights"]
        assert math.isnan(rows[1]["norm"]) and math.isfinite(rows[2]["norm"])


@pytest.mark.distributed
def test_spike_lists_clips_of_all_ranks(two_ranks):
    rows = spikes(two_ranks / "base")
    assert [(row["step"], row["clips"]) for row in rows] == [
        (2, [["train-02"], ["train-03"]]),
        (3, [["train-04"], ["train-05"]]),
    ]


@pytest.mark.distributed
def test_distillation_skips_steps_without_scored_positions_and_continues(two_ranks):
    by_rank = [json.loads((two_ranks / f"distilled-{rank}.json").read_text()) for rank in range(2)]
    rows = metrics(two_ranks / "base_opd")
    assert [row["step"] for row in rows] == [*range(1, len(CASES) + 1)] and "dev_error" in rows[-1]
    skipped = 0
    for step, (case, row) in enumerate(zip(CASES, rows, strict=True)):
        counts, losses = ([records[step][key] for records in by_rank] for key in ("count", "loss"))
        assert [count > 0 for count in counts] == [each == "fine" for each in case]
        taken = "fine" in case
        skipped += not taken
        assert row["tokens"] == sum(counts) and row["skipped_steps"] == skipped
        assert row.get("loss") == (pytest.approx(sum(losses) / sum(counts)) if taken else None)
        assert (row.get("gradient_norm", 0.0) > 0) is taken
        for records in by_rank:  # each rank records its own shard
            assert (records[step]["weights"] != records[step + 1]["weights"]) is taken
    assert skipped == 5


@pytest.mark.distributed
def test_distillation_logs_finite_values_only(two_ranks):
    for row in metrics(two_ranks / "base_opd"):
        assert all(math.isfinite(value) for value in row.values()), row
    assert spikes(two_ranks / "base_opd") == []
