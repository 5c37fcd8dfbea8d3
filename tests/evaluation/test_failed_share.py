"""Failed clips over all ranks: counts, order, and the limit."""

from __future__ import annotations

from copy import copy

import pytest

from arkasr.data.reasons import MISSING, Failure
from arkasr.errors import UserError
from arkasr.evaluation.failed_share import ClipCounts
from arkasr.evaluation.transcribing import Result
from arkasr.evaluation.workers import Workers


def failure(name: str, kind: str = "not transcribed") -> Failure:
    return Failure(name, "1.00 s of audio", kind, "too long")


@pytest.fixture
def workers(tmp_path):
    with Workers(tmp_path, "decode") as each:
        yield each


def test_failures_are_in_the_order_of_the_manifest(workers, tmp_path, capsys):
    counts = ClipCounts(workers, 9, 1.0, tmp_path / "x.jsonl")
    counts.add(Result([{}, {}], [failure("b", MISSING)], [failure("a")]))
    counts.add(Result([], [], [failure("\ud83d")]))
    assert counts.failures({"\ud83d": 0, "b": 1, "a": 2}) == [failure("\ud83d"), failure("b", MISSING), failure("a")]
    assert capsys.readouterr().out.count("dropped ") == 2  # the loader has logged the other one


def test_limit_is_checked_when_a_transcription_fails(workers, tmp_path):
    counts = ClipCounts(workers, 4, 0.25, tmp_path / "x.jsonl")
    counts.add(Result([], [failure("a", MISSING), failure("b", MISSING)], []))  # at the end, all may be listed
    message = (
        r"x.jsonl: more than data.max_failed_share=0.25 failed, 3 of 4 \(2 missing audio file, 1 not transcribed\)"
    )
    with pytest.raises(UserError, match=message):
        counts.add(Result([], [], [failure("c")]))


def test_message_names_the_clips_up_to_the_limit_however_slow_the_rank_is(workers, tmp_path, monkeypatch):
    """Before this rank reads the list, another one counts a third clip and ends with its own error."""
    counts = ClipCounts(workers, 4, 0.25, tmp_path / "x.jsonl")
    other, read, errors = copy(counts), workers.listed, []
    other.add(Result([], [], [failure("b")]))

    def read_late(key):
        monkeypatch.setattr(workers, "listed", read)
        with pytest.raises(UserError) as caught:
            other.add(Result([], [], [failure("a")]))
        errors.append(str(caught.value))
        return read(key)

    monkeypatch.setattr(workers, "listed", read_late)
    with pytest.raises(UserError, match=r"2 of 4 \(2 not transcribed\); the first is b ") as caught:
        counts.add(Result([], [], [failure("c")]))
    assert errors == [str(caught.value)]


def test_unread_clips_of_another_rank_do_not_make_an_earlier_failure_exceed_the_limit(workers, tmp_path, monkeypatch):
    """The other rank lists them between the list and the counter of this one."""
    counts, append = ClipCounts(workers, 4, 0.25, tmp_path / "x.jsonl"), workers.append

    def append_before_others(key, values):
        append(key, values)
        monkeypatch.setattr(workers, "append", append)
        counts.add(Result([], [failure("b", MISSING)], []))

    monkeypatch.setattr(workers, "append", append_before_others)
    counts.add(Result([], [], [failure("a")]))
    with pytest.raises(UserError, match=r"failed, 2 of 4 \(1 not transcribed, 1 missing audio file\)"):
        counts.check(counts.failures({}), least=1)  # at the end


def test_all_clips_may_not_fail(workers, tmp_path):
    counts = ClipCounts(workers, 1, 1.0, tmp_path / "x.jsonl")
    counts.add(Result([], [failure("a", MISSING)], []))
    with pytest.raises(UserError, match="all clips failed, 1 of 1"):
        counts.check(counts.failures({}), least=1)
