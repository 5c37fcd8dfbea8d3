"""Columns of tables: default names, names of corpus.yaml, and their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.corpora.corpus import Columns
from arkasr.corpora.layouts.columns import DEFAULT_NAMES, ColumnMap
from arkasr.errors import UserError


def test_columns_are_found_by_every_default_name():
    for field, names in DEFAULT_NAMES.items():
        for name in names:
            assert getattr(ColumnMap({}).of({"other": 1, name: 2}), field) == name


def test_columns_prefer_the_first_default_name():
    found = ColumnMap({}).of({"file_name": 1, "path": 2, "sentence": 3, "transcript": 4})
    assert (found.audio, found.text, found.speaker) == ("path", "transcript", None)


def test_columns_of_corpus_yaml_replace_the_default_names():
    columns = ColumnMap(vars(Columns(text="raw", start="from")))
    found = columns.of({"audio": 1, "text": 2, "raw": 3, "offset": 4})
    assert (found.audio, found.text, found.start) == ("audio", "raw", None)


def test_columns_may_differ_from_row_to_row():
    columns = ColumnMap({})
    assert columns.of({"audio": 1}).text is None
    assert columns.of({"audio": 1, "text": 2}).text == "text"


def test_every_field_of_corpus_yaml_has_default_names():
    assert set(vars(Columns())) <= set(DEFAULT_NAMES)


def test_missing_audio_column_names_what_was_found_and_what_is_allowed():
    error = str(ColumnMap({}).no_audio(Path("t.csv"), {"wav_file": 1, "words": 2}))
    assert "'wav_file', 'words'" in error and "audio_filepath" in error and "columns: {audio: wav_file}" in error
    error = str(ColumnMap({"audio": "wavs"}).no_audio(Path("t.csv"), {"audio": 1}))
    assert "'wavs' (key columns.audio)" in error


def test_column_that_no_row_has_is_refused_with_the_nearest():
    columns = ColumnMap({"text": "sentense"})
    columns.require_found([Path("t.csv")])  # no row was read, so that nothing is known
    columns.of({"audio": 1, "sentence": 2})
    with pytest.raises(UserError, match=r"columns\.text 'sentense'.*did you mean 'sentence'\?"):
        columns.require_found([Path("t.csv")])
    columns.of({"audio": 1, "sentense": 2})
    columns.require_found([Path("t.csv")])
