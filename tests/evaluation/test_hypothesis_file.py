"""Hypothesis files: which lines are rows, and texts that are not UTF-8."""

from __future__ import annotations

import json

import pytest
from corpus_fixture import make_cut, write_cuts

from arkasr.data.batches import load_batch
from arkasr.data.checks import Rules
from arkasr.evaluation.hypotheses import row
from arkasr.evaluation.hypothesis_file import HypothesisFile, read_rows
from arkasr.evaluation.transcribing import Result

GOOD = {"id": "a", "hypothesis": "x", "reference": "y", "stopped": None, "looping": True}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"3",
        b"null",
        b'"a"',
        b"\xff",
        b"\x00\x00",
        b"",
        json.dumps(GOOD).encode()[:-9],
        *(json.dumps(GOOD | change).encode() for change in ({"id": 1}, {"id": None}, {"hypothesis": None})),
        *(json.dumps(GOOD | change).encode() for change in ({"stopped": 1}, {"looping": "no"}, {"reference": []})),
        json.dumps(GOOD).encode(),  # a repeated id
    ],
)
def test_read_rows_leaves_out_and_counts_lines_that_are_no_rows(tmp_path, line):
    good, other = (json.dumps(row).encode() for row in (GOOD, GOOD | {"id": "b"}))
    (tmp_path / "file").write_bytes(good + b"\n" + line + b"\n" + other)
    assert read_rows(tmp_path / "file") == ({"a": GOOD, "b": GOOD | {"id": "b"}}, 1)


def test_read_rows_of_missing_file_is_empty(tmp_path):
    assert read_rows(tmp_path / "file") == ({}, 0)


def hypotheses(folder, *cuts) -> HypothesisFile:
    manifest = folder / "test.jsonl.gz"
    write_cuts(manifest, cuts)
    return HypothesisFile(folder / "test.jsonl", manifest, Rules(), 9.0, 0.0, "decode base test", "raise the limit")


def test_text_that_is_not_utf8_is_kept(tmp_path):
    """A model may write half of a surrogate pair."""
    file = hypotheses(tmp_path, make_cut(tmp_path, "a", 0.5, "one"), make_cut(tmp_path, "b", 0.6, "two"))
    texts = {"a": "half \ud83d", "b": "\u4e00 whole \U0001f600"}
    file.transcribe(
        lambda batches: [
            Result([row(batch, i, texts[name]) for i, name in enumerate(batch.ids)], [], [])
            for batch in map(load_batch, batches)
        ]
    )
    file.finish()
    assert {name: one["hypothesis"] for name, one in read_rows(file.path)[0].items()} == texts
    assert "\u4e00" in file.path.read_text(encoding="utf-8")  # readable where it can be
    assert file.is_complete() and not file.part.exists()


def test_discard_deletes_and_counts_rows(tmp_path):
    file = hypotheses(tmp_path, make_cut(tmp_path, "a", 0.5, "one"))
    file.part.write_text(json.dumps(GOOD) + "\n")
    assert not file.is_complete() and file.discard() == 1
    assert not file.part.exists() and file.discard() == 0
