"""Audio that cannot be read: a share that is too large ends the run, on all ranks alike, in a sentence."""

from __future__ import annotations

import pytest
from corpus_fixture import make_cut, metrics, write_cuts

from arkasr.errors import UserError
from arkasr.training import guards
from arkasr.training.guards import LEAST, FailedClips
from arkasr.training.ranks import Ranks
from arkasr.training.train import train


def test_a_share_is_judged_once_enough_clips_were_tried():
    clips = FailedClips(0.25, Ranks())
    clips.judge(LEAST / 2, LEAST / 2 - 1)  # half of them, but too few to tell
    clips = FailedClips(0.25, Ranks())
    clips.judge(LEAST / 4, LEAST * 3 / 4)  # the share itself is allowed
    with pytest.raises(UserError, match=rf"^25\.\d% of the clips could not be read \({LEAST // 4 + 1} of {LEAST + 1};"):
        clips.judge(1, 0)


def test_a_share_of_one_allows_everything():
    FailedClips(1.0, Ranks()).judge(10.0 * LEAST, 0)


def test_the_counts_outlive_a_resume():
    before, after = (FailedClips(0.1, Ranks()) for _ in range(2))
    before.judge(20, 180)
    after.load_state_dict(before.state_dict())
    after.last = "a.wav"
    with pytest.raises(UserError, match="21 of 201; data.max_failed_share=0.1.*, the last of them a.wav: mend"):
        after.judge(1, 0)


def test_all_ranks_end_and_name_a_clip_that_one_of_them_tried(monkeypatch):
    ranks = Ranks()
    monkeypatch.setattr(ranks, "gather", lambda item: ["", "b (/b.wav): LibsndfileError: gone", item])
    clips = FailedClips(0.0, ranks)
    with pytest.raises(UserError, match=r"the last of them b \(/b.wav\): LibsndfileError: gone: mend the audio"):
        clips.judge(1, LEAST)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_whose_audio_is_gone_ends_and_carries_on_when_it_is_back(
    conf, datadir, tmp_path, monkeypatch, num_workers
):
    monkeypatch.setattr(guards, "LEAST", 8)
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one two") for i in range(6)]
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.wav").rename(tmp_path / f"{name}.away")
    changes = [f"data.train={write_cuts(tmp_path / 'cuts.jsonl.gz', cuts)}", "train.save_every=1", "train.eval_every=0"]
    changes += ["train.steps=6", "data.max_cuts=2", f"data.num_workers={num_workers}"]
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    with pytest.raises(UserError, match=r"^[23]\d\.\d% of the clips could not be read \(2 of ") as failure:
        train(*arguments, changes)
    said = str(failure.value)
    assert "data.max_failed_share=0.05" in said and f"clip-{said.partition('clip-')[2][0]} ({tmp_path}/clip-" in said
    rows = metrics(tmp_path / "base")
    assert 0 < len(rows) < 6 and sum(row["failed_clips"] for row in rows) in (1, 2)
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.away").rename(tmp_path / f"{name}.wav")
    train(*arguments, [*changes, "data.max_failed_share=0.5"])
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2, 3, 4, 5, 6]
