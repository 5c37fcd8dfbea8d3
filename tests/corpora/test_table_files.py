"""Table files of a corpus folder, and the parts of their rows."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from own_audio import write_csv, write_jsonl

from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.corpora.layouts.table_files import Table, find_tables
from arkasr.corpora.layouts.table_rows import CSV_SUFFIXES, JSONL_SUFFIXES
from arkasr.errors import UserError

COLUMNS = ColumnMap({})


def test_find_tables_lists_tables_of_the_folder_and_metadata_of_its_folders(tmp_path):
    for name in ("train.jsonl", "my_manifest.json", "dev.jsonl.gz", "a.csv", ".hidden.jsonl", "b/metadata.jsonl",
                 "b/other.jsonl", "c/metadata.csv", "c/d/metadata.csv", "e.tsv.gz", "notes.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {str(table.path.relative_to(tmp_path)): table.part for table in find_tables(tmp_path, JSONL_SUFFIXES)}
    assert found == {"train.jsonl": "train", "my_manifest.json": "my_manifest", "dev.jsonl.gz": "dev",
                     "b/metadata.jsonl": "b"}  # fmt: skip
    found = {str(table.path.relative_to(tmp_path)): table.part for table in find_tables(tmp_path, CSV_SUFFIXES)}
    assert found == {"a.csv": "a", "c/metadata.csv": "c", "e.tsv.gz": "e"}


def test_find_tables_takes_one_table(tmp_path):
    path = write_jsonl(tmp_path / "calls.jsonl", [{"audio": "a.wav"}])
    write_jsonl(tmp_path / "other.jsonl", [])
    assert find_tables(path, JSONL_SUFFIXES) == [Table(path, "calls")]
    assert find_tables(path, CSV_SUFFIXES) == []


def test_count_parts_reads_the_split_column(tmp_path):
    rows = [{"audio": "a.wav", "split": split} for split in ("train", "train", " test ", "", None, 3)]
    path = write_jsonl(tmp_path / "all.jsonl", rows)
    path.write_text("damaged\n" + path.read_text())
    assert Table(path, "all").count_parts(COLUMNS) == Counter({"train": 2, "test": 1, "3": 1})


def test_count_parts_of_a_file_without_split_does_not_read_it(tmp_path):
    lines = ['{"audio": "a.wav"}'] * 200
    packed = gzip.compress("\n".join([*lines, ""]).encode() + b"x" * 3_000_000)
    (tmp_path / "train.jsonl.gz").write_bytes(packed[:-9])  # damaged at its end
    assert Table(tmp_path / "train.jsonl.gz", "train").count_parts(COLUMNS) == Counter({"train": 0})


def test_folders_of_an_audiofolder_with_one_table_are_parts(tmp_path):
    names = ["train/a.wav", "./test/b.wav", "validation/c/d.wav", "e.wav", "speaker1/f.wav"]
    path = write_csv(tmp_path / "metadata.csv", [{"file_name": name, "text": "x"} for name in names])
    (table,) = find_tables(tmp_path, CSV_SUFFIXES)
    assert table == Table(path, "train", by_folder=True)
    assert table.count_parts(COLUMNS) == Counter({"train": 3, "test": 1, "validation": 1})


def test_checked_rows_allow_damaged_rows_before_the_first_with_audio(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('oops\n{"text": "no audio"}\n{"audio": "a.wav"}\n')
    assert [line for line, _ in Table(path, "train").checked_rows(COLUMNS)] == [1, 2, 3]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("train.jsonl", "", "holds no rows"),
        ("train.jsonl", "\n\n", "holds no rows"),
        ("train.csv", "audio,text\n", "holds no rows"),
        ("train.jsonl", '{"sound": "a.wav"}\n', "no column for the audio; found 'sound', expected any of audio, "),
        ("train.csv", "a.wav,hello\nb.wav,you\n", "no column for the audio; found 'a.wav', 'hello'"),
    ],
)
def test_tables_without_rows_or_audio_are_refused(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        list(Table(tmp_path / name, "train").checked_rows(COLUMNS))


def test_a_missing_folder_is_refused():
    with pytest.raises(UserError, match="/proc/none: leads to nothing"):
        find_tables(Path("/proc/none"), JSONL_SUFFIXES)
