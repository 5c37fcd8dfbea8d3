"""Rows of table files: encodings, compression, damaged rows, and the separators of CSV files."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkasr.corpora.layouts.entries import NOT_UTF8
from arkasr.corpora.layouts.table_rows import HEADER_AGAIN, NOT_AN_OBJECT, NOT_JSON, OTHER_LENGTH, read_rows
from arkasr.errors import UserError

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def rows(folder, name: str, content: str | bytes) -> list:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["train.jsonl", "train.csv", "train.tsv"])
def test_marks_line_ends_and_compression_do_not_change_rows(tmp_path, mark, end, pack, name):
    content = {"jsonl": b'{"audio": "a.wav"}\n{"audio": "b.wav"}\n', "csv": b"audio\na.wav\nb.wav\n"}
    text = content["jsonl" if name.endswith("l") else "csv"].replace(b"\n", end)
    found = rows(tmp_path, name, pack(mark + text))
    assert [row for _, row in found] == [{"audio": "a.wav"}, {"audio": "b.wav"}]
    assert [line for line, _ in found] == ([1, 2] if name.endswith("l") else [2, 3])


def test_damaged_rows_of_json_keep_their_line_and_hide_no_others(tmp_path):
    deep = b"[" * 100_000
    lines = [b'{"audio": "a.wav"}', b"", b'{"audio": "b.wav"', b'["c.wav"]', b"7", b'{"audio": "\xff"}', deep, b"{}"]
    assert rows(tmp_path, "train.jsonl", b"\n".join(lines)) == [
        (1, {"audio": "a.wav"}),
        (3, NOT_JSON),
        (4, NOT_AN_OBJECT),
        (5, NOT_AN_OBJECT),
        (6, NOT_UTF8),
        (7, NOT_JSON),
        (8, {}),
    ]


def test_rows_of_csv_may_have_quoted_line_ends_and_separators(tmp_path):
    text = 'audio,text\n"a,1.wav","one\ntwo ""three"""\nb.wav,four\n'
    assert rows(tmp_path, "train.csv", text) == [
        (2, {"audio": "a,1.wav", "text": 'one\ntwo "three"'}),
        (4, {"audio": "b.wav", "text": "four"}),
    ]


def test_csv_counts_rows_of_another_length_and_repeated_headers(tmp_path):
    text = "audio, text\na.wav,one\na.wav\nb.wav,two,three\n\naudio,text\n,,\nc.wav,\n"
    assert rows(tmp_path, "train.csv", text) == [
        (2, {"audio": "a.wav", "text": "one"}),
        (3, OTHER_LENGTH),
        (4, OTHER_LENGTH),
        (6, HEADER_AGAIN),
        (8, {"audio": "c.wav", "text": ""}),
    ]


@pytest.mark.parametrize("separator, word", [("\t", "tabs"), (";", "semicolons")])
def test_csv_without_commas_in_its_header_is_read_with_other_separators(tmp_path, separator, word, capsys):
    text = f'audio{separator}text\na.wav{separator}"one, two"\n'
    assert rows(tmp_path, "train.csv", text) == [(2, {"audio": "a.wav", "text": "one, two"})]
    assert f"separated by {word}" in capsys.readouterr().out


def test_a_lone_quotation_mark_in_a_tsv_swallows_no_rows(tmp_path):
    text = 'path\tsentence\na.wav\t"one\nb.wav\t"two" three\n'
    found = [row["sentence"] for _, row in rows(tmp_path, "all.tsv", text)]
    assert found == ['"one', '"two" three']


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("t.jsonl", '{"audio": "a.wav"}'.encode("utf-16"), "iconv"),
        ("t.csv", "audio\na.wav\n".encode("utf-16-le"), "iconv"),
        ("t.jsonl", b'\n[{"audio": "a.wav"}]'[1:], "one JSON list"),
        ("t.jsonl.gz", gzip.compress(b'{"audio": "a.wav"}\n' * 50)[:-12], "compressed file is damaged"),
        ("t.csv", b'audio,text\na.wav,"one\nb.wav,two\n', "line 2: is not valid CSV"),
        ("t.csv", b'audio,text\na.wav,one\nb.wav,"two" three\n', "line 3: is not valid CSV"),
        ("t.csv", b"audio,text,text\na.wav,one,two\n", "names the column 'text' twice"),
    ],
)
def test_files_that_are_damaged_as_a_whole_are_refused(tmp_path, name, content, words):
    with pytest.raises(UserError, match=words) as error:
        rows(tmp_path, name, content)
    assert str(tmp_path / name) in str(error.value)


def test_a_folder_named_like_a_table_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path))


@PROPERTY
@given(st.lists(st.dictionaries(TEXT, TEXT, min_size=1), min_size=1), st.booleans())
def test_json_rows_keep_any_text(tmp_path, objects, ascii_only):
    text = "".join(json.dumps(each, ensure_ascii=ascii_only) + "\n" for each in objects)
    assert [row for _, row in rows(tmp_path, "t.jsonl", text)] == objects


@PROPERTY
@given(st.lists(st.tuples(TEXT, TEXT).filter(lambda pair: any(pair) and pair != ("audio", "text")), min_size=1))
def test_csv_rows_keep_any_text(tmp_path, pairs):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerows([("audio", "text"), *pairs])
    found = [row for _, row in rows(tmp_path, "t.csv", file.getvalue())]
    assert found == [{"audio": audio, "text": text} for audio, text in pairs]


PIECES = [b"audio,text\n", b'"', b"\n", b"\r", b'{"audio": "a"}\n', b",", b"\0", b"\t"]


@PROPERTY
@given(st.sampled_from(["t.jsonl", "t.csv", "t.tsv", "t.csv.gz"]), st.lists(st.binary() | st.sampled_from(PIECES)))
def test_any_bytes_give_rows_or_a_user_error(tmp_path, name, parts):
    try:
        found = rows(tmp_path, name, b"".join(parts))
    except UserError as error:
        assert str(tmp_path / name) in str(error)
    else:
        assert all(line >= 1 and isinstance(row, dict | str) for line, row in found)
