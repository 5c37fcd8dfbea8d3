"""FailedClips: a run ends on all ranks, with one message, when too large a share of its audio cannot be read."""

from __future__ import annotations

import pytest
from corpus_fixture import make_cut, metrics, write_cuts

from arkasr.errors import UserError
from arkasr.training import guards
from arkasr.training.guards import MIN_CLIPS, FailedClips
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
    monkeypatch.setattr(ranks, "gather", lambda item: ["", "b (/b.wav): LibsndfileError: gone", item])
    clips = FailedClips(0.0, ranks)
    with pytest.raises(UserError, match=r"last failure: b \(/b.wav\): LibsndfileError: gone; repair the audio"):
        clips.add(1, MIN_CLIPS)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_run_with_missing_audio_ends_and_resumes_after_repair(conf, datadir, tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(guards, "MIN_CLIPS", 8)
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one two") for i in range(6)]
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.wav").rename(tmp_path / f"{name}.away")
    changes = [f"data.train={write_cuts(tmp_path / 'cuts.jsonl.gz', cuts)}", "train.save_every=1", "train.eval_every=0"]
    changes += ["train.steps=6", "data.max_cuts=2", f"data.num_workers={num_workers}"]
    arguments = [str(conf), "base", str(tmp_path), str(datadir)]
    with pytest.raises(UserError, match=r"^[23]\d\.\d% of the clips could not be read \(2 of ") as failure:
        train(*arguments, changes)
    message = str(failure.value)
    name = f"clip-{message.partition('clip-')[2][0]}"
    assert "data.max_failed_share=0.05" in message and f"{name} ({tmp_path}/clip-" in message
    rows = metrics(tmp_path / "base")
    assert 0 < len(rows) < 6 and sum(row["failed_clips"] for row in rows) in (1, 2)
    for name in ("clip-0", "clip-1"):
        (tmp_path / f"{name}.away").rename(tmp_path / f"{name}.wav")
    train(*arguments, [*changes, "data.max_failed_share=0.5"])
    assert [row["step"] for row in metrics(tmp_path / "base")] == [1, 2, 3, 4, 5, 6]
