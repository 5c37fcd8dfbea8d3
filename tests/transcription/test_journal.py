from __future__ import annotations

import multiprocessing

import pytest

from arkasr.errors import UserError
from arkasr.transcription.journal import Journal
from arkasr.transcription.results import Segment, Transcription
from arkasr.transcription.source import Source

MADE_BY = {"model": "exp/final", "language": "English", "hotwords": ["a"]}
RESULT = Transcription("a.wav", "你好", (Segment("你好", 0.0, 1.0),), 1.0, "Chinese", "exp/final")
SOURCE = Source("a.wav", lambda: None, "a", stamp="1")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / ".arkasr.jsonl"


def kept(path, source=SOURCE, made_by=MADE_BY):
    journal = Journal(path, made_by)
    journal.close()
    return journal.kept(source)


def filled(path):
    journal = Journal(path, MADE_BY)
    journal.add(SOURCE, RESULT)
    journal.close()


def test_a_transcription_is_kept_for_the_same_audio_only(path):
    filled(path)
    assert kept(path) == RESULT
    assert kept(path, Source("a.wav", SOURCE.open, "a", stamp="2")) is None
    assert kept(path, Source("b.wav", SOURCE.open, "b", stamp="1")) is None
    assert kept(path, Source("a.wav", SOURCE.open, "a", stamp="")) is None


@pytest.mark.parametrize(("key", "value"), [("model", "other"), ("language", "German"), ("hotwords", [])])
def test_another_model_or_option_is_refused_and_named(path, key, value):
    filled(path)
    with pytest.raises(UserError, match=rf"{key} .* then, .* now.*name another --output"):
        Journal(path, MADE_BY | {key: value})
    assert kept(path) == RESULT


def test_every_state_that_a_kill_may_leave_can_be_read(path):
    filled(path)
    whole = path.read_bytes()
    for size in (*range(0, len(whole), 13), len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        assert kept(path) == (RESULT if size == len(whole) else None)
        filled(path)
        assert kept(path) == RESULT


def test_files_of_others_are_never_overwritten(path):
    journal = Journal(path, MADE_BY)
    own, other = path.parent / "own.txt", path.parent / "other.txt"
    journal.claim(own)
    own.write_text("x")
    other.write_text("y")
    journal.close()
    again = Journal(path, MADE_BY)
    again.claim(own)
    with pytest.raises(UserError, match=r"other\.txt: exists, and was not written by arkasr transcribe"):
        again.claim(other)
    again.close()


def test_a_journal_without_an_entry_leaves_no_file(path):
    Journal(path, MADE_BY).close()
    assert not path.exists()


def _try(path, queue):
    try:
        Journal(path, MADE_BY)
    except UserError as error:
        queue.put(str(error))


def test_two_processes_cannot_write_one_output(path):
    journal = Journal(path, MADE_BY)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_try, args=(path, queue))
    process.start()
    assert "another process is writing this output" in queue.get(timeout=60)
    process.join()
    journal.close()
