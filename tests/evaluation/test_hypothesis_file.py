"""Hypothesis files: transcription, completion and deletion."""

from __future__ import annotations

import json

import pytest
from corpus_fixture import make_cut, write_cuts

from arkasr.data.batches import load_batch
from arkasr.data.checks import Rules
from arkasr.data.reasons import Failure
from arkasr.errors import UserError
from arkasr.evaluation.hypotheses import row
from arkasr.evaluation.hypothesis_file import HypothesisFile
from arkasr.evaluation.part_files import read_rows
from arkasr.evaluation.transcribing import Result
from arkasr.evaluation.workers import Workers

GOOD = {"id": "a", "hypothesis": "x", "reference": "y", "stopped": None, "looping": True}


def hypotheses(folder, *cuts) -> HypothesisFile:
    manifest = folder / "test.jsonl.gz"
    write_cuts(manifest, cuts)
    return HypothesisFile(folder / "test.jsonl", manifest, Rules(), 9.0, 0.0, "decode base test", "raise the limit")


def test_text_that_is_not_utf8_is_kept(tmp_path):
    """A model may write half of a surrogate pair."""
    file = hypotheses(tmp_path, make_cut(tmp_path, "a", 0.5, "one"), make_cut(tmp_path, "b", 0.6, "two"))
    texts = {"a": "half \ud83d", "b": "\u4e00 whole \U0001f600"}
    with Workers(tmp_path, "decode") as workers:
        file.transcribe(
            workers,
            lambda batches: [
                Result([row(batch, i, texts[name]) for i, name in enumerate(batch.ids)], [], [])
                for batch in map(load_batch, batches)
            ],
        )
    file.finish()
    assert {name: one["hypothesis"] for name, one in read_rows(file.path)[0].items()} == texts
    assert "\u4e00" in file.path.read_text(encoding="utf-8")  # readable where it can be
    assert file.is_complete() and not file.parts.paths()


def test_discard_deletes_and_counts_rows(tmp_path):
    file = hypotheses(tmp_path, make_cut(tmp_path, "a", 0.5, "one"))
    for name in ("test.jsonl.part", "test.jsonl.part-3"):
        (tmp_path / name).write_text(json.dumps(GOOD) + "\n")
    assert not file.is_complete() and file.discard() == 2
    assert not file.parts.paths() and file.discard() == 0


def test_clip_without_row_and_reason_is_an_error(tmp_path):
    file = hypotheses(tmp_path, make_cut(tmp_path, "a", 0.5, "one"), make_cut(tmp_path, "b", 0.6, "two"))
    file.max_failed_share = 0.5
    message = "test.jsonl: 1 of 2 clips have no hypothesis, such as b; partial files were changed by another program"
    with Workers(tmp_path, "decode") as workers:
        with pytest.raises(UserError, match=message):
            file.transcribe(workers, lambda batches: [Result([{"id": "a", "hypothesis": ""}], [], [])])
        file.transcribe(workers, lambda batches: [Result([], [Failure("b", "b.wav", "missing audio file")], [])])
    assert [failure.id for failure in file.failures] == ["b"] and not file.path.exists()
