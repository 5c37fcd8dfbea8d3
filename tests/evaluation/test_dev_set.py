"""The sample of the dev set: spread over speakers, the same for every rank, order of the manifest and start."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import pytest
from lhotse import MonoCut, SupervisionSegment
from tiny import ARK_SIZES, student_tokenizer

from arkasr.config.schema import DecodeConfig
from arkasr.errors import UserError
from arkasr.evaluation.dev_set import DevSet, sample_over_speakers, speaker_of
from arkasr.model.build import build_fresh


def cut(name: str, speaker: str | None) -> MonoCut:
    segment = SupervisionSegment(name, name, 0.0, 1.0, text="one", language="English", speaker=speaker)
    return MonoCut(name, 0.0, 1.0, 0, supervisions=[segment])


def speakers_with(counts: dict[str | None, int]) -> list[MonoCut]:
    return [cut(f"{speaker}-{i:05d}", speaker) for speaker, count in counts.items() for i in range(count)]


def test_sample_of_aishell_covers_all_speakers():
    """AISHELL's dev set: 14,326 clips of 40 speakers, in the order of their ids. The first 100 are of one speaker."""
    cuts = speakers_with({f"S{724 + i:04d}": 358 + (i < 6) for i in range(40)})
    assert len(cuts) == 14326 and len({speaker_of(c) for c in cuts[:100]}) == 1
    counts = Counter(map(speaker_of, sample_over_speakers(cuts, 100)))
    assert len(counts) == 40 and set(counts.values()) == {2, 3} and counts.total() == 100


def test_sample_does_not_depend_on_the_order_of_the_manifest():
    cuts = speakers_with({"a": 9, "b": 30, None: 11})
    shuffled = random.Random(3).sample(cuts, len(cuts))
    sample = sample_over_speakers(cuts, 20)
    assert sample == sample_over_speakers(shuffled, 20)
    assert [c.id for c in sample] != sorted(c.id for c in sample)


def test_rare_speakers_give_all_their_clips():
    counts = Counter(map(speaker_of, sample_over_speakers(speakers_with({"a": 1, "b": 2, "c": 50}), 20)))
    assert counts == {"a": 1, "b": 2, "c": 17}


def test_clips_without_speaker_are_drawn_in_proportion():
    counts = Counter(map(speaker_of, sample_over_speakers(speakers_with({"a": 30, "b": 30, None: 40}), 50)))
    assert counts == {"a": 15, "b": 15, "": 20}
    sample = sample_over_speakers(speakers_with({None: 1000}), 50)
    places = [int(c.id.rpartition("-")[2]) for c in sample]
    assert len(set(places)) == 50 and min(places) < 200 and max(places) > 800


@pytest.mark.parametrize("counts", [{"a": 3, "b": 4}, {None: 7}, {"a": 1, None: 6}, {"a": 6, None: 1}, {}])
@pytest.mark.parametrize("size", [0, 1, 2, 5, 7, 100])
def test_sample_has_the_requested_size(counts, size):
    cuts = speakers_with(counts)
    sample = sample_over_speakers(cuts, size)
    assert len({c.id for c in sample}) == len(sample) == min(size, len(cuts))


def test_ranks_share_the_sample_and_say_how_many_speakers_it_has(datadir, capsys):
    shares = [DevSet(str(datadir / "dev.jsonl.gz"), 3, rank, 2).cuts for rank in range(2)]
    whole = DevSet(str(datadir / "dev.jsonl.gz"), 3).cuts
    assert sorted(c.id for share in shares for c in share) == sorted(c.id for c in whole) and len(whole) == 3
    assert "dev.jsonl.gz: dev clips 3 of 4, speakers 1 of 1" in capsys.readouterr().out


def test_clips_longer_than_the_model_accepts_are_left_out_and_counted(datadir, capsys):
    """As with the encoder of Whisper, whose positions end at 30 s: longer dev clips must not end a training."""
    whole = DevSet(str(datadir / "dev.jsonl.gz"), 100)
    durations = [cut.duration for cut in whole.cuts]
    limit = durations[len(durations) // 2]
    audio = ARK_SIZES["audio"] | {"positions": "learned", "max_position_embeddings": int(limit * 50)}
    lm = build_fresh("arkasr", ARK_SIZES | {"audio": audio}, student_tokenizer())
    short = sum(duration <= lm.max_seconds for duration in durations)
    assert 0 < short < len(durations)
    found = whole.errors(lm, DecodeConfig(max_new_tokens=3, max_seconds=8))
    assert found["clips"] == short and found["failed"] == len(durations) - short and found["words"] > 0
    assert f"dev: {len(durations) - short} clips are left out, longer than the" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_dev_folder_of_shards_has_corpus_json_inside_or_beside(datadir, tmp_path, place):
    folder = tmp_path / "dev"
    folder.mkdir()
    shutil.copy(datadir / "dev.jsonl.gz", folder)
    with pytest.raises(UserError, match="dev: there is no corpus.json beside it.* or set train.eval_every=0"):
        DevSet(str(folder), 2)
    shutil.copy(datadir / "corpus.json", folder if place == "inside" else tmp_path)
    assert DevSet(str(folder), 2).metric in ("wer", "cer")


def test_a_missing_dev_manifest_is_named_as_such(tmp_path):
    with pytest.raises(UserError, match="dev.jsonl.gz: no such manifest; run the recipe from --stage 1"):
        DevSet(str(tmp_path / "dev.jsonl.gz"), 2)
