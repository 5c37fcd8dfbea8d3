"""A run ends on all ranks, with one message, when too large a share of its audio cannot be read."""

from __future__ import annotations

from collections import Counter

import pytest
from corpus_fixture import make_cut, metrics, write_cuts

from arkasr.data.reasons import EMPTY, MISSING, Failure
from arkasr.errors import UserError
from arkasr.training import clip_counts
from arkasr.training.clip_counts import MIN_CLIPS, MIN_ROLLOUTS, CutRollouts, FailedClips
from arkasr.training.ranks import Ranks
from arkasr.training.train import train


def test_add_checks_share_after_min_clips():
    clips = FailedClips(0.25, Ranks())
    clips.add(MIN_CLIPS / 2, MIN_CLIPS / 2 - 1)  # half of them failed, but they are too few for a check
    clips = FailedClips(0.25, Ranks())
    clips.add(MIN_CLIPS / 4, MIN_CLIPS * 3 / 4)  # a share equal to the limit is allowed
    counts = rf"{MIN_CLIPS // 4 + 1} of {MIN_CLIPS + 1}"
    with pytest.raises(UserError, match=rf"^25\.\d% of the clips could not be read \({counts};"):
        clips.add(1, 0)


def test_max_share_of_one_allows_everything():
    FailedClips(1.0, Ranks()).add(10.0 * MIN_CLIPS, 0)


def test_load_state_dict_restores_counts():
    before, after = (FailedClips(0.1, Ranks()) for _ in range(2))
    before.add(20, 180)
    after.load_state_dict(before.state_dict())
    after.last = "a.wav"
    with pytest.raises(UserError, match="21 of 201; data.max_failed_share=0.1.*; last failure: a.wav; repair"):
        after.add(1, 0)


def test_add_names_failed_clip_of_any_rank(monkeypatch):
    ranks = Ranks()
    other = FailedClips(0.0, Ranks())
    other.note([Failure("a", "/a.wav", MISSING), Failure("b", "/b.wav", EMPTY, "0 samples")])
    values = {str: ["", other.last], Counter: [Counter(), other.kinds]}
    monkeypatch.setattr(ranks, "gather", lambda item: [*values[type(item)], item])
    clips = FailedClips(0.0, ranks)
    clips.note([Failure("c", "/c.wav", MISSING)])
    clips.note([])
    assert clips.last == "c (/c.wav): missing audio file"
    clips.last = ""
    counts = rf"3 of {MIN_CLIPS + 3}; data.max_failed_share=0; 2 missing audio file, 1 empty audio"
    with pytest.raises(UserError, match=rf"\({counts}\); last failure: b \(/b.wav\): empty audio: 0 samples; repair"):
        clips.add(3, MIN_CLIPS)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_run_with_missing_audio_ends_and_resumes_after_repair(conf, datadir, tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(clip_counts, "MIN_CLIPS", 8)
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one two") for i in range(6)]
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.wav").rename(tmp_path / f"{name}.away")
    changes = [f"data.train={write_cuts(tmp_path / 'cuts.jsonl.gz', cuts)}", "train.save_every=1", "train.eval_every=0"]
    changes += ["train.steps=6", "data.max_cuts=2", f"data.num_workers={num_workers}"]
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    with pytest.raises(UserError, match=r"^[234]\d\.\d% of the clips could not be read \([23] of ") as failure:
        train(*arguments, changes)
    message = str(failure.value)
    name = f"clip-{message.partition('clip-')[2][0]}"
    assert "data.max_failed_share=0.05" in message and f"{name} ({tmp_path}/clip-" in message
    rows = metrics(tmp_path / "base")
    assert 0 < len(rows) < 6 and sum(row["failed_clips"] for row in rows) in (1, 2, 3)
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.away").rename(tmp_path / f"{name}.wav")
    train(*arguments, changes)  # the same command: no checkpoint holds counts above the limit
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2, 3, 4, 5, 6]


# Runs without data


def manifest_without_audio(folder, count: int, missing: int) -> str:
    cuts = [make_cut(folder, f"clip-{i}", 0.5, "one two") for i in range(count)]
    for i in range(missing):
        (folder / f"clip-{i}.wav").unlink()
    return f"data.train={write_cuts(folder / 'cuts.jsonl.gz', cuts)}"


@pytest.mark.slow
def test_short_run_is_judged_at_its_end(conf, datadir, tmp_path):
    """Far fewer clips than `MIN_CLIPS`. The last checkpoint is not written either."""
    changes = [manifest_without_audio(tmp_path, 4, 1), "train.eval_every=0", "train.save_every=0", "train.steps=2"]
    with pytest.raises(UserError, match=r"^\d\d\.\d% of the clips could not be read .*clip-0.*; repair the audio"):
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert not (tmp_path / "base" / "final").exists() and not list(tmp_path.glob("base/checkpoints/*"))
    train(str(conf), "base", str(tmp_path), str(datadir), [*changes, "data.max_failed_share=0.5"])
    assert (tmp_path / "base" / "final" / "config.json").is_file()


@pytest.mark.slow
def test_short_run_without_audio_succeeds_after_repair(conf, datadir, tmp_path, capsys):
    """It saves at steps that could read nothing, below `MIN_CLIPS` clips. The same command must not resume there."""
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one two") for i in range(4)]
    changes = [f"data.train={write_cuts(tmp_path / 'cuts.jsonl.gz', cuts)}", "train.eval_every=0", "train.save_every=1"]
    changes += ["train.steps=3"]
    for i in range(4):
        (tmp_path / f"clip-{i}.wav").rename(tmp_path / f"clip-{i}.away")
    with pytest.raises(UserError, match="no clip could be read"):
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert not list(tmp_path.glob("base/checkpoints/*"))
    assert "step 1: no checkpoint is written, because too many clips could not be read" in capsys.readouterr().out
    for i in range(4):
        (tmp_path / f"clip-{i}.away").rename(tmp_path / f"clip-{i}.wav")
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert (tmp_path / "base" / "final" / "config.json").is_file()


@pytest.mark.parametrize("max_share", [0.05, 1.0])
def test_run_that_reads_no_clip_fails_and_names_the_audio(conf, datadir, tmp_path, capsys, max_share):
    changes = [manifest_without_audio(tmp_path, 4, 4), "train.eval_every=0", f"data.max_failed_share={max_share}"]
    with pytest.raises(UserError) as failure:
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    message, printed = str(failure.value), capsys.readouterr().out
    assert "all 4 steps were skipped, because no clip could be read (last failure: clip-" in message
    assert "repair the audio" in message and "optim.lr" not in message
    assert "loss 0.000" not in printed and "loss -" in printed
    rows = metrics(tmp_path / "base")
    assert len(rows) == 4 and not any({"loss", "ce", "gradient_norm"} & row.keys() for row in rows)
    assert not (tmp_path / "base" / "final").exists()


def test_steps_skipped_for_missing_audio_do_not_advise_another_learning_rate(conf, datadir, tmp_path):
    changes = [manifest_without_audio(tmp_path, 4, 4), "train.eval_every=0", "train.max_skipped=3"]
    with pytest.raises(UserError, match="no clip could be read on any rank; last failure: clip-") as failure:
        train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert "optim.lr" not in str(failure.value) and "repair the audio" in str(failure.value)


# Cut transcripts


def test_cut_transcripts_are_reported_when_many_and_at_the_end(capsys):
    cut = CutRollouts()
    cut.add({"loss": 1.0})  # a supervised step
    cut.report()
    cut.add({"rolled": MIN_ROLLOUTS - 1.0, "stopped": 0.0})
    assert capsys.readouterr().out == ""
    for _ in range(3):
        cut.add({"rolled": 1.0, "stopped": 0.0})
    text = capsys.readouterr().out
    assert text.count("warning: ") == 1 and f"({MIN_ROLLOUTS} of {MIN_ROLLOUTS})" in text
    other = CutRollouts()
    other.load_state_dict(cut.state_dict())
    other.report()
    expected = f"100.0% of the student's transcripts so far were cut at the token cap ({MIN_ROLLOUTS + 2} of"
    assert expected in capsys.readouterr().out
