"""Partial files: which lines are rows, repair, and merging of the files of several ranks."""

from __future__ import annotations

import json

import pytest

from arkasr.errors import UserError
from arkasr.evaluation import part_files
from arkasr.evaluation.part_files import PartFiles, line, read_rows

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


def test_read_rows_ends_after_a_number_of_bytes(tmp_path):
    first = line(GOOD)
    (tmp_path / "file").write_text(first + line(GOOD | {"id": "b"}))
    assert list(read_rows(tmp_path / "file", len(first))[0]) == ["a"]
    assert list(read_rows(tmp_path / "file", len(first) - 1)[0]) == []


def parts_with(folder, **texts: str) -> PartFiles:
    """Return the partial files of `x.jsonl`, with these texts by suffix."""
    for suffix, text in texts.items():
        (folder / f"x.jsonl.{suffix.replace('_', '-')}").write_text(text)
    return PartFiles(folder / "x.jsonl")


def test_paths_are_in_the_order_of_ranks(tmp_path):
    parts = parts_with(tmp_path, part_10="", part_2="", part="", part_2_new="", partial="")
    assert [path.name for path in parts.paths()] == ["x.jsonl.part", "x.jsonl.part-2", "x.jsonl.part-10"]
    assert parts.of_rank(10) == parts.paths()[-1]
    assert PartFiles(tmp_path / "absent" / "x.jsonl").paths() == []


def test_repair_leaves_one_whole_row_per_clip(tmp_path, capsys):
    a, b, c, d = (line({"id": name, "hypothesis": name}) for name in "abcd")
    parts = parts_with(tmp_path, part=a, part_0=a + b + c[:-4], part_1=d[:-1], part_2=c)
    assert parts.repair(lambda row: row["id"] != "b") == {"a", "d", "c"}
    texts = [path.read_text() for path in parts.paths()]
    assert texts == [a, "", d, c]
    assert "x.jsonl.part-0: 1 damaged lines and 1 of clips with another duration left out" in capsys.readouterr().out
    assert parts.sizes() == {
        "x.jsonl.part": len(a),
        "x.jsonl.part-0": 0,
        "x.jsonl.part-1": len(d),
        "x.jsonl.part-2": len(c),
    }
    assert parts.ids(parts.sizes()) == {"a", "c", "d"} and parts.ids({"x.jsonl.part-1": len(d)}) == {"d"}
    assert parts.rows().keys() == {"a", "c", "d"}


def test_merge_writes_one_file_and_deletes_the_others(tmp_path):
    a, b = ({"id": name, "hypothesis": name} for name in "ab")
    parts = parts_with(tmp_path, part_0=line(b), part_1=line(a))
    parts.merge([a, b])
    assert (tmp_path / "x.jsonl").read_text() == line(a) + line(b) and not parts.paths()


def test_reopen_after_an_interrupted_merge_keeps_the_merged_rows(tmp_path):
    parts = parts_with(tmp_path, part_0=line({"id": "b", "hypothesis": "b"}))
    (tmp_path / "x.jsonl").write_text(line({"id": "a", "hypothesis": "a"}) + line({"id": "b", "hypothesis": "b"}))
    parts.reopen()
    assert list(parts.rows()) == ["a", "b"] and [path.name for path in parts.paths()] == ["x.jsonl.part"]


def test_await_sizes_names_a_file_that_this_machine_does_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr(part_files, "SECONDS_TO_SEE", 0.0)
    parts = parts_with(tmp_path, part_0="abc")
    parts.await_sizes({"x.jsonl.part-0": 3})
    for sizes in ({"x.jsonl.part-0": 4}, {"x.jsonl.part-1": 0}):
        with pytest.raises(UserError, match=r"x.jsonl.part-\d: another machine has written \d bytes"):
            parts.ids(sizes)
    parts.create(2)
    assert list(parts.sizes().items()) == [("x.jsonl.part-0", 3), ("x.jsonl.part-1", 0)]
