"""Batches after resuming: with `exact` the same clips in the same order, with `reseed` a new order at once."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from corpus_fixture import metrics
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from shard_files import NUM_CLIPS, counted, epoch, settings, shards  # noqa: F401
from training_runs import cost_free, train_until

from arkasr import cli
from arkasr.data.manifests import read_cuts
from arkasr.data.sampling import TrainingBatches
from arkasr.training.train import Trainer, train

TWENTY = ["train.steps=20", "train.save_every=10", "train.eval_every=0"]


@pytest.fixture
def step_clips(monkeypatch):
    """Return a dictionary that gets the clip ids of every step trained from now on. Repeated steps overwrite."""
    steps: dict[int, list[str]] = {}
    take_step = Trainer.take_step

    def recording(self, batches):
        def recorded():
            for batch in batches:
                steps.setdefault(self.step + 1, []).append(batch.ids)
                yield batch

        steps.pop(self.step + 1, None)
        return take_step(self, recorded())

    monkeypatch.setattr(Trainer, "take_step", recording)
    return steps


def assert_same_run(one, other) -> None:
    """Assert that final weights and metrics are identical."""
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert cost_free(metrics(one)) == cost_free(metrics(other))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "changes"),
    [
        ((2, 3), ["train.accumulate=2"]),
        ((3, 2), ["data.lazy=always", "data.buffer_clips=5", "data.train={datadir}/t[dr]*.jsonl.gz"]),
        ((0, 2), []),
    ],
)
def test_killed_run_resumes_with_identical_steps(conf, datadir, tmp_path, monkeypatch, step_clips, workers, changes):
    def arguments(name, num_workers):
        overrides = [*TWENTY, *changes, f"data.num_workers={num_workers}"]
        return str(conf), "base", str(tmp_path / name), str(datadir), overrides

    train(*arguments("whole", workers[0]))
    whole = dict(step_clips)
    train_until(monkeypatch, 14, *arguments("cut", workers[0]))
    torch.manual_seed(4321)  # a new process starts from an arbitrary state
    step_clips.clear()
    train(*arguments("cut", workers[1]))
    assert sorted(whole) == list(range(1, 21)) and sorted(step_clips) == list(range(11, 21))
    assert all(step_clips[step] == whole[step] for step in step_clips)
    clips = Counter(name for step in whole.values() for batch in step for name in batch)
    assert min(clips.values()) > 1  # the steps cover more than one epoch
    assert_same_run(tmp_path / "whole" / "base", tmp_path / "cut" / "base")


@pytest.mark.slow
def test_killed_loader_ends_the_run_with_an_error_and_the_same_command_resumes(
    conf, datadir, tmp_path, monkeypatch, capsys
):
    def words(name):
        place = ["--expdir", str(tmp_path / name), "--datadir", str(datadir)]
        return ["train", str(conf), "--run", "base", *place, *TWENTY, "data.num_workers=2"]

    take_step, killed = Trainer.take_step, []

    def kill_loader(self, batches):
        row = take_step(self, batches)
        if self.step >= 12 and not killed and (workers := multiprocessing.active_children()):
            self.checkpoints.wait()  # step 10 is saved in the background
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "take_step", kill_loader)
        assert cli.main(words("cut")) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(  # torch has two messages for this
        rf"arkasr train: error: a data loader process died \(DataLoader worker \(pid(\(s\))? {killed[0]}\) .*\), "
        "most often because memory ran out; run the same command again to resume.*\n",
        message,
    )
    assert multiprocessing.active_children() == []
    assert cli.main(words("cut")) == 0
    assert f"resuming from {tmp_path / 'cut' / 'base' / 'checkpoints' / 'step-00000010'}" in capsys.readouterr().out
    assert cli.main(words("whole")) == 0
    assert_same_run(tmp_path / "whole" / "base", tmp_path / "cut" / "base")


def taken(batches: TrainingBatches, number: int) -> list[str]:
    return [name for batch in islice(batches, number) for name in batch.ids]


@pytest.mark.parametrize("lazy", ["always", "never"])
@pytest.mark.parametrize("worlds", [(4, 2, 1), (1, 3), (3, 4, 3), (2, 2)])
def test_resume_on_other_world_size_keeps_every_clip_once(shards, lazy, worlds):
    seen, state = [], None
    for place, world_size in enumerate(worlds):
        ranks = [TrainingBatches(settings(shards, lazy=lazy), 1, rank, world_size) for rank in range(world_size)]
        for batches in ranks:
            if state is not None:
                batches.load_state_dict(state)
            seen += taken(batches, 2) if place < len(worlds) - 1 else epoch(batches)
        state = ranks[0].state_dict()
        assert place == len(worlds) - 1 or all(batches.state_dict() == state for batches in ranks)
    clips = Counter(name for name in seen if "_dup" not in name)  # copies fill an incomplete last group
    assert len(clips) == NUM_CLIPS and set(clips.values()) == {1}


def test_resume_on_other_world_size_can_be_resumed_again(shards):
    first = TrainingBatches(settings(shards), 1, 0, 4)
    taken(first, 2)
    state, drawn = first.state_dict(), []
    for _ in range(2):
        second = TrainingBatches(settings(shards), 1, 1, 2)
        second.load_state_dict(state)
        drawn.append(taken(second, 8))
        assert drawn[-1] == drawn[0]
    third = TrainingBatches(settings(shards), 1, 1, 2)
    third.load_state_dict(state)
    head = taken(third, 3)
    fourth = TrainingBatches(settings(shards), 1, 1, 2)
    fourth.load_state_dict(third.state_dict())
    assert head + taken(fourth, 5) == drawn[0]


def resumed(shards, state, resume: str, **changes) -> TrainingBatches:
    batches = TrainingBatches(settings(shards, resume=resume, **changes), 1)
    batches.load_state_dict(state)
    return batches


def test_reseed_starts_at_once_in_a_new_order(shards, counted, capsys):
    before = TrainingBatches(settings(shards), 1)
    seen = taken(before, 8)
    state, rest, parsed = before.state_dict(), {}, {}
    for resume, start in (("exact", [0, 0]), ("reseed", state["read"])):
        after = resumed(shards, state, resume)
        counted.clear()
        first = taken(after, 1)
        assert after.state_dict()["start"] == start
        parsed[resume], rest[resume] = len(counted), first + epoch(after)
    assert parsed["exact"] > len(seen) and parsed["reseed"] == 9  # only the cuts of one buffer
    assert "in a new order, without up to 9 clips read before (data.resume=reseed)" in capsys.readouterr().out
    assert len({*seen, *rest["exact"]}) == NUM_CLIPS and not {*rest["reseed"]} & {*seen}
    assert 0 < NUM_CLIPS - len({*seen, *rest["reseed"]}) <= 9  # clips in the buffer are left out of this epoch


def test_epoch_after_a_reseeded_one_is_complete(shards):
    before = TrainingBatches(settings(shards), 1)
    taken(before, 8)
    after = resumed(shards, before.state_dict(), "reseed")
    first = next(batch for batch in after if after.epoch == 1)
    assert sorted(first.ids + epoch(after)) == sorted(epoch(before_epoch_one(shards)))


def before_epoch_one(shards) -> TrainingBatches:
    batches = TrainingBatches(settings(shards), 1)
    batches.epoch = 1
    return batches


@pytest.mark.parametrize("lazy", ["always", "never"])
@pytest.mark.parametrize("worlds", [(1, 1), (2, 2), (2, 3), (3, 1)])
def test_reseed_is_deterministic_and_ranks_stay_disjoint(shards, lazy, worlds):
    states, seen = [], []
    for rank in range(worlds[0]):
        before = TrainingBatches(settings(shards, lazy=lazy), 1, rank, worlds[0])
        seen += taken(before, 3)
        states.append(before.state_dict())
    assert all(state == states[0] for state in states)
    drawn = []
    for _ in range(2):
        ranks = [
            TrainingBatches(settings(shards, lazy=lazy, resume="reseed"), 1, r, worlds[1]) for r in range(worlds[1])
        ]
        for batches in ranks:
            batches.load_state_dict(states[0])
        drawn.append([epoch(batches) for batches in ranks])
    assert drawn[0] == drawn[1]
    clips = Counter([*seen, *(name for rank in drawn[0] for name in rank if "_dup" not in name)])
    assert set(clips.values()) == {1}


def test_reseeded_epoch_can_be_resumed_exactly(shards):
    before = TrainingBatches(settings(shards), 1)
    taken(before, 4)
    reseeded = resumed(shards, before.state_dict(), "reseed")
    stream = iter(reseeded)
    for _ in range(3):
        next(stream)
    state, following = reseeded.state_dict(), [next(stream).ids for _ in range(3)]
    after = iter(resumed(shards, state, "exact"))
    assert [next(after).ids for _ in range(3)] == following
    assert resumed(shards, state, "reseed").state_dict()["start"] == state["read"] > state["start"] > [0, 0]


def test_order_does_not_depend_on_global_generators(shards):
    drawn = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        states = random.getstate(), torch.get_rng_state()
        drawn.append(epoch(TrainingBatches(settings(shards), 1)))
        assert random.getstate() == states[0] and torch.equal(torch.get_rng_state(), states[1])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("lazy", ["always", "never"])
def test_state_of_a_version_with_another_order_resumes_with_a_warning(shards, capsys, lazy):
    before = TrainingBatches(settings(shards, lazy=lazy), 1)
    taken(before, 4)
    state = before.state_dict()
    resumed(shards, state, "exact", lazy=lazy)
    assert "another version" not in capsys.readouterr().out
    del state["order"]
    after = resumed(shards, state, "exact", lazy=lazy)
    assert "warning: epoch 0 was begun by another version of arkasr" in capsys.readouterr().out
    rest = epoch(after)
    assert rest and len(set(rest)) == len(rest)


def test_clip_above_max_seconds_forms_its_own_batch_and_is_logged_once(shards, capsys):
    batches = TrainingBatches(settings(shards, max_seconds=6.0), 1)
    drawn = []
    for batch in batches:
        if batches.epoch == 2:
            break
        drawn.append(batch.ids)
    seconds = {cut.id: cut.duration for cut in read_cuts(str(shards))}
    for names in drawn:
        assert len(names) == 1 or len(names) * max(seconds[name] for name in names) <= 6.0
    assert any(seconds[names[0]] > 6.0 for names in drawn)
    assert sorted(name for names in drawn for name in names) == sorted([*seconds] * 2)
    assert capsys.readouterr().out.count("above data.max_seconds=6; it forms its own batch") == 1


@given(
    seed=st.integers(0, 99),
    worlds=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=4),
    lazy=st.sampled_from(["always", "never"]),
    buckets=st.integers(1, 10),
)
@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_of_ranks_keeps_every_clip_once_within_the_limits(shards, seed, worlds, lazy, buckets):
    config = settings(shards, lazy=lazy, num_buckets=buckets, max_seconds=12.0, max_cuts=4)
    seconds = {cut.id: cut.duration for cut in read_cuts(str(shards))}
    seen, state = [], None
    for place, (world_size, number) in enumerate(worlds):
        last = place == len(worlds) - 1
        ranks = [TrainingBatches(config, seed, rank, world_size) for rank in range(world_size)]
        for batches in ranks:
            if state is not None:
                batches.load_state_dict(state)
            drawn = []
            for batch in batches if last else islice(batches, number):
                if batches.epoch:
                    break
                drawn.append([name.partition("_dup")[0] for name in batch.ids if "_dup" not in name])
                assert (
                    len(batch.ids) == 1
                    or len(batch.ids) * max(seconds[n.partition("_dup")[0]] for n in batch.ids) <= 12
                )
            seen += [name for names in drawn for name in names]
        if any(batches.epoch for batches in ranks):
            return
        state = ranks[0].state_dict()
    assert sorted(seen) == sorted(seconds)
