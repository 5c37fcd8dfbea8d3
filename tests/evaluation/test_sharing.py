"""Which batches ranks take: all of them once, in parts that become smaller."""

from __future__ import annotations

import pytest
from corpus_fixture import make_cut
from pid_transcriber import make_transcriber

from arkasr.config.schema import DataConfig
from arkasr.errors import UserError
from arkasr.evaluation.sharing import split, transcribed
from arkasr.evaluation.transcribing import Transcribing
from arkasr.evaluation.workers import Workers


@pytest.mark.parametrize("ranks", [2, 3, 24])
@pytest.mark.parametrize("number", [0, 1, 5, 24, 100, 1000])
def test_split_has_each_batch_once_and_single_batches_at_the_end(ranks, number):
    parts = split(range(number), ranks)
    assert sorted(batch for part in parts for batch in part) == list(range(number)) and all(parts)
    assert all(part == sorted(part) for part in parts)
    sizes = list(map(len, parts))
    assert sizes == sorted(sizes, reverse=True) and sizes[-ranks:] == [1] * min(ranks, number)
    assert not parts or parts[0][0] == 0  # the longest clips first
    assert len(parts) <= ranks * (8 + 3 * max(number // ranks, 1).bit_length())


def test_split_for_one_rank_is_one_part():
    assert split(range(9), 1) == [list(range(9))] and split([], 1) == []


def test_ranks_of_different_speed_finish_together():
    """A rank at a third of the speed takes a third of the batches. No rank waits longer than one batch takes."""
    parts, seconds = split(range(240), 3), [0.0, 0.0, 0.0]
    for part in parts:
        rank = seconds.index(min(seconds))
        seconds[rank] += len(part) * (3.0 if rank == 0 else 1.0)
    assert max(seconds) - min(seconds) <= 3.0


def test_transcribed_gives_each_batch_with_one_model_per_dtype(tmp_path):
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5 + 0.1 * i, "one") for i in range(3)]
    transcribing = Transcribing(make_transcriber, DataConfig(num_workers=0), 60.0, "cpu")
    with Workers(tmp_path, "decode") as workers:
        found = [list(transcribed([[cut] for cut in cuts], workers, transcribing, dtype)) for dtype in ("a", "b", "a")]
    rows = [[row for result in results for row in result.rows] for results in found]
    assert [[row["id"] for row in each] for each in rows] == [["clip-0", "clip-1", "clip-2"]] * 3
    assert [each[0]["hypothesis"].split()[0] for each in rows] == ["a", "b", "a"]
    assert rows[0][0]["made"] == rows[2][0]["made"] != rows[1][0]["made"]


def test_rank_that_has_read_other_clips_is_named(tmp_path):
    cuts = [make_cut(tmp_path, f"clip-{i}", 0.5, "one") for i in range(2)]
    transcribing = Transcribing(make_transcriber, DataConfig(num_workers=0), 60.0, "cpu")
    with Workers(tmp_path, "decode") as workers:
        workers.decide = lambda make: "digest of rank 0"
        with pytest.raises(UserError, match=r"rank 0 on \S+ has read other clips than rank 0; put --datadir"):
            list(transcribed([cuts], workers, transcribing, "a"))
