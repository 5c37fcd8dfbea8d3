"""Values of --test_sets: data directories, manifests and tables, with the language that gives the metric."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import soundfile
from decoded import ENGLISH, MANDARIN, write_data, write_manifest

from arkasr.errors import UserError
from arkasr.evaluation.chosen_sets import chosen_sets
from arkasr.evaluation.texts_io import read_references

ZH = {"z1": "\u6211\u4eec"}
EN_PROFILES = ("unicode", "paper", "leaderboard-2026-08")
ZH_PROFILES = ("unicode", "paper", "wenet")


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", "libri", {"test-clean": {"u1": "a dog"}}, ENGLISH)


@pytest.fixture
def table(tmp_path):
    """A folder with a table of two clips, without language."""
    for name in ("a", "b"):
        (tmp_path / "calls").mkdir(exist_ok=True)
        samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
        soundfile.write(tmp_path / "calls" / f"{name}.wav", samples, 16000)
    path = tmp_path / "calls" / "calls.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["audio", "text"], ["a.wav", "guten tag"], ["b.wav", "ja"]])
    return path


def chosen(tmp_path, *values):
    return chosen_sets(str(tmp_path / "exp"), str(tmp_path / "data"), values)


def facts(tested):
    return tested.name, tested.metric, tested.profiles, tested.language, tested.corpus


def test_without_values_the_test_sets_of_the_data_directory_are_chosen(tmp_path, data):
    (tested,) = chosen(tmp_path)
    assert facts(tested) == ("test-clean", "wer", ("unicode", "paper"), "English", "libri")
    assert (tested.spec, tested.datadir, tested.manifest) == ("", str(data), data / "test-clean.jsonl.gz")


def test_data_directory_gives_its_test_sets_by_name_and_column(tmp_path, data):
    one = write_data(tmp_path / "zh", "aishell", {"test": ZH}, MANDARIN, paper={"test": "AISHELL-1"})
    many = write_data(tmp_path / "wenet", "wenet", {"test-net": ZH, "test-meeting": ZH}, MANDARIN)
    values = [f"zh={one}", f"w={many}"]
    found = chosen(tmp_path, *values)
    assert [facts(each) for each in found] == [
        ("zh", "cer", ZH_PROFILES, "Chinese", "aishell"),
        ("w-test-net", "cer", ZH_PROFILES, "Chinese", "wenet"),
        ("w-test-meeting", "cer", ZH_PROFILES, "Chinese", "wenet"),
    ]
    assert [each.column for each in found] == ["AISHELL-1", "", ""]
    assert [each.spec for each in found] == [values[0], values[1], values[1]]


@pytest.mark.parametrize(
    ("option", "language", "expected"),
    [
        ("zh", "Chinese", ("cer", ZH_PROFILES, "Chinese")),  # of its clips
        ("zh", "", ("wer", EN_PROFILES, "English")),  # of the data directory
        ("zh:de", "", ("wer", ("unicode", "paper"), "German")),
        ("zh:Chinese", "English", ("cer", ZH_PROFILES, "Chinese")),
    ],
)
def test_manifest_is_scored_in_the_language_that_is_named_or_of_its_clips(tmp_path, data, option, language, expected):
    path = write_manifest(tmp_path / "own" / "cuts.jsonl", ZH, language)
    (tested,) = chosen(tmp_path, f"{option}={path}")
    assert facts(tested) == ("zh", *expected, "zh") and tested.manifest == path and tested.scale == "paper"


def test_manifest_beside_a_corpus_json_is_scored_like_that_set(tmp_path, data):
    zh = write_data(tmp_path / "zh", "aishell", {"test": ZH}, MANDARIN, paper={"test": "AISHELL-1"})
    (tested,) = chosen(tmp_path, f"mandarin={zh / 'test.jsonl.gz'}")
    assert facts(tested) == ("mandarin", "cer", ZH_PROFILES, "Chinese", "aishell") and tested.column == "AISHELL-1"


def test_manifest_of_several_languages_needs_a_language(tmp_path, data):
    path = write_manifest(tmp_path / "mixed.jsonl.gz", {"u1": "a"}, "English")
    other = write_manifest(tmp_path / "other.jsonl.gz", ZH, "Chinese")
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(UserError, match="the clips are in Chinese, English, but a test set has one metric"):
        chosen(tmp_path, f"mixed={path}")
    assert facts(chosen(tmp_path, f"mixed:zh={path}")[0])[1:3] == ("cer", ZH_PROFILES)


def test_table_is_prepared_in_the_experiment(tmp_path, data, table):
    (tested,) = chosen(tmp_path, f"calls:German={table}")
    assert facts(tested) == ("calls", "wer", ("unicode", "paper"), "German", "calls")
    assert tested.manifest.is_relative_to(tmp_path / "exp" / "test_sets" / "calls")
    assert sorted(read_references(tested.manifest).values()) == ["guten tag", "ja"]
    before = tested.manifest.stat().st_mtime_ns
    assert chosen(tmp_path, f"calls:German={table}") == [tested] and tested.manifest.stat().st_mtime_ns == before
    table.write_text(table.read_text().replace("ja", "nein danke"))
    chosen(tmp_path, f"calls:German={table}")
    assert sorted(read_references(tested.manifest).values()) == ["guten tag", "nein danke"]


def test_folder_of_json_lines_is_prepared_and_each_table_is_a_test_set(tmp_path, data, table):
    rows = {"near": ["a"], "far": ["b", "a"]}
    table.unlink()
    for part, names in rows.items():
        lines = [json.dumps({"audio": f"{name}.wav", "text": "ja"}) + "\n" for name in names]
        (table.parent / f"{part}.jsonl").write_text("".join(lines))
    found = chosen(tmp_path, f"calls:de={table.parent}")
    assert [each.name for each in found] == ["calls-far", "calls-near"]
    assert [len(read_references(each.manifest)) for each in found] == [2, 1]


def test_parts_for_training_are_left_out(tmp_path, data, table, capsys):
    rows = table.read_text().splitlines()
    parts = ["split", "test", "train"]
    table.write_text("".join(f"{row},{part}\n" for row, part in zip(rows, parts, strict=True)))
    (tested,) = chosen(tmp_path, f"calls:de={table}")
    assert tested.name == "calls" and len(read_references(tested.manifest)) == 1
    output = capsys.readouterr().out
    assert f"--test_sets calls:de={table}: decodes test, not train" in output
    assert "so this set is empty" not in output and "0 files" not in output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("calls.csv", "is not complete; give NAME=PATH or NAME:LANGUAGE=PATH"),
        ("calls=", "is not complete"),
        ("calls:=calls.csv", "is not complete"),
        ("../x=calls.csv", "'../x' cannot be a name"),
        ("calls:Germn=calls.csv", "language 'Germn': is not a language that is known here (did you mean German?)"),
        ("calls=absent.csv", "absent.csv does not exist"),
        ("calls={tmp}/notes.txt", "is no manifest of cuts, no table"),
        ("calls={tmp}/empty", "is no manifest of cuts, no table"),
        ("calls={tmp}/train.csv", "holds rows of the part train, which is no name of a test set"),
        ("calls={tmp}/none", "none: has no test set"),
    ],
)
def test_unusable_values_are_named(tmp_path, data, table, value, message):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "train.csv").write_bytes(table.read_bytes())
    write_data(tmp_path / "none", "none", {}, ENGLISH)
    with pytest.raises(UserError) as caught:
        chosen(tmp_path, value.format(tmp=tmp_path))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_repeated_names_are_refused(tmp_path, data):
    path = write_manifest(tmp_path / "own.jsonl", {"u1": "a"})
    with pytest.raises(UserError, match="another value has the name own"):
        chosen(tmp_path, f"own={path}", f"own={path}")
