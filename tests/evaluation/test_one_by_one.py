"""Batches in which single clips fail: what is counted, and what ends the command."""

from __future__ import annotations

import pytest
import torch
from tiny import batch

from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import row
from arkasr.evaluation.one_by_one import InvalidTranscriptsError, check_transcripts, transcribe_or_fail

SIZES = [9000, 8000, 16000]


def transcriber(errors=None):
    """Return a function that transcribes the number of samples, or raises the error for it."""

    def transcribe(clips):
        for error in ((errors or {}).get(len(w)) for w in clips.waveforms):
            if error is not None:
                raise error
        return [row(clips, i, str(len(w))) for i, w in enumerate(clips.waveforms)]

    return transcribe


def test_all_clips_are_transcribed_in_order():
    rows, failures = transcribe_or_fail(transcriber(), batch(SIZES))
    assert [row["hypothesis"] for row in rows] == ["9000", "8000", "16000"] and not failures


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (UserError("too long\nfor it"), "too long for it"),
        (RuntimeError("shapes differ"), "RuntimeError: shapes differ"),
        (IndexError(), "IndexError: "),
    ],
)
def test_clip_that_raises_is_counted_with_its_reason_and_ends_no_other(error, detail):
    clips = batch(SIZES)
    rows, failures = transcribe_or_fail(transcriber({8000: error}), clips)
    assert [row["hypothesis"] for row in rows] == ["9000", "16000"]
    [failure] = failures
    assert (failure.id, failure.source, failure.detail) == (clips.ids[1], "0.50 s of audio", detail)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_that_runs_out_ends_the_command_with_one_sentence(error):
    with pytest.raises(UserError, match="memory ran out for a batch of 3 clips, 2 s of audio; lower decode.max_sec"):
        transcribe_or_fail(transcriber({8000: error}), batch(SIZES))


def test_lost_connection_ends_the_command():
    """No clip is to blame, so none is counted as failed. The plugin may hide the cause behind its own error."""
    error = UserError("http://host: no answer")
    error.__cause__ = RuntimeError("transport")
    error.__cause__.__cause__ = ConnectionRefusedError()
    with pytest.raises(UserError, match="no answer"):
        transcribe_or_fail(transcriber({8000: error}), batch(SIZES))


def test_ctrl_c_ends_the_command():
    with pytest.raises(KeyboardInterrupt):
        transcribe_or_fail(transcriber({8000: KeyboardInterrupt()}), batch(SIZES))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a", "b"], "2 values of type str"),
        (["a", None, "c"], "3 values of type NoneType, str"),
        ([], r"\[\]"),
        (None, "None"),
        ("abc", "'abc'"),
        ([["a"], ["b"], ["c"]], "3 values of type list"),
    ],
)
def test_teacher_that_returns_no_text_per_clip_is_named(texts, found):
    clips = batch(SIZES)
    with pytest.raises(InvalidTranscriptsError, match=f"teacher 'x': `transcribe` returned {found} for 3 clips"):
        transcribe_or_fail(lambda b: check_transcripts(texts, b, "x"), clips)
    assert check_transcripts(("a", "b", "c"), clips, "x") == ("a", "b", "c")
