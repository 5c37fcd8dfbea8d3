"""Entries of table rows: paths, ids, recordings of segments, and rows with a fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.corpora.layouts.entries import BACKWARDS, Entry
from arkasr.corpora.layouts.table_entries import EntryMaker
from arkasr.corpora.layouts.table_times import NOT_A_TIME
from arkasr.corpora.layouts.table_values import (
    BAD_AUDIO,
    NO_PATH,
    NOT_A_NAME,
    NOT_AN_ID,
    NOT_TEXT,
    OTHER_TASK,
    TWO_LANGUAGES,
)

ROOT = Path("/data/corpus")


def entry(row: dict, table: str = "all.jsonl") -> Entry:
    return EntryMaker(ROOT / table, ROOT, ColumnMap({})).entry("train", 7, row)


def test_entry_takes_every_field():
    row = {"audio": "wavs/a.wav", "text": " Hello  you", "lang": "en-GB", "speaker_id": 3, "start": 1, "end": 2.5,
           "id": "utt-1", "unused": {}}  # fmt: skip
    found = entry(row)
    assert found == Entry(
        "train", "utt-1", ROOT / "wavs/a.wav", "Hello you", "", "3", found.recording, 1.0, 2.5, "English"
    )
    assert found.recording.startswith("a-")


def test_entry_of_a_path_alone_is_the_whole_file_without_transcript():
    found = entry({"audio": "wavs/a.wav"})
    assert (found.text, found.recording, found.begin, found.end, found.speaker) == (None, "", 0.0, None, None)


def test_paths_begin_at_the_table():
    assert entry({"audio": "a.wav"}, "train/metadata.csv").audio == ROOT / "train/a.wav"
    assert entry({"audio": "../a.wav"}, "train/metadata.csv").audio == ROOT / "train/../a.wav"
    assert entry({"audio": "/x/a.wav"}).audio == Path("/x/a.wav")


def test_made_ids_do_not_depend_on_where_the_corpus_is():
    moved = EntryMaker(Path("/new/all.jsonl"), Path("/new"), ColumnMap({})).entry("train", 1, {"audio": "/new/b/a.wav"})
    assert {entry({"audio": path}).id for path in ("b/a.wav", "./b/a.wav", "/data/corpus/b/a.wav")} == {moved.id}


def test_segments_of_one_file_share_a_recording_and_differ_in_id():
    made = [entry({"audio": "a.wav", "offset": float(start), "duration": 1}) for start in range(5)]
    assert len({each.id for each in made}) == 5 and len({each.recording for each in made}) == 1


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"audio": None}, NO_PATH),
        ({"audio": 5}, BAD_AUDIO),
        ({"text": 5}, NOT_TEXT),
        ({"speaker": ["a"]}, NOT_A_NAME),
        ({"id": 1.5}, NOT_AN_ID),
        ({"id": "a\x07b"}, NOT_AN_ID),
        ({"start": "x"}, NOT_A_TIME),
        ({"start": 3, "end": 2}, BACKWARDS),
        ({"task": "ast"}, OTHER_TASK),
        ({"language": "de", "text": "language English<asr_text>hi"}, TWO_LANGUAGES),
        ({"language": "Englsh"}, "unknown language 'Englsh', did you mean English?"),
    ],
)
def test_entry_of_a_row_with_a_fault_names_the_place_of_the_row(fields, reason):
    found = entry({"audio": "a.wav", "text": "hi"} | fields, "train/metadata.jsonl")
    assert (found.id, found.reason) == ("train/metadata.jsonl:7", reason)
    assert found.audio == ROOT / ("train/metadata.jsonl" if "audio" in fields else "train/a.wav")
