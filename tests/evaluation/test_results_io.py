"""Damaged files of a data directory and of decoding give one sentence that names the file and the remedy."""

from __future__ import annotations

import gzip
import json

import pytest
from json_lines import write_lines

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet, read_corpus_facts, read_hypotheses, read_references, test_set

CORPUS = {"name": "toy", "metric": "wer", "normalizer": "english", "test_sets": ["test"]}
DAMAGE = {
    "zero-byte": b"",
    "zeros": b"\0" * 64,
    "torn": b'{"name": "to',
    "not-utf8": b'{"name": "\xff\xfe"}',
    "list": b"[1, 2]",
    "null": b"null",
}
ROW = {"id": "u1", "hypothesis": "a", "stopped": True}
SOURCE = {"type": "file", "channels": [0], "source": "absent.wav"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_read_corpus_facts_names_damaged_file(tmp_path, damage):
    (tmp_path / "corpus.json").write_bytes(DAMAGE[damage])
    with pytest.raises(UserError, match=r"corpus\.json: .*--stage 1"):
        read_corpus_facts(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "key 'name' must be text, got 3"),
        ({"test_sets": "test"}, "key 'test_sets' must be a list, got 'test'"),
        ({"test_sets": ["../../etc/passwd"]}, "key 'test_sets' must be different names"),
        ({"test_sets": [".."]}, "key 'test_sets' must be different names"),
        ({"test_sets": ["test", "test"]}, "key 'test_sets' must be different names"),
        ({"test_sets": [None]}, "key 'test_sets' must be different names"),
        ({"metric": ["wer"]}, "key 'metric' must be text"),
        ({"paper": ["AISHELL-1"]}, "key 'paper' must be a mapping"),
        ({"paper": {"test": 7}}, "corpus.json, paper: key 'test' must be text, got 7"),
        ({"sets": {"test": None}}, "corpus.json, set test: must be a mapping, got None"),
        ({"sets": {"test": {"hours": "1 h"}}}, "corpus.json, set test: key 'hours' must be a number, got '1 h'"),
        ({"sets": {"test": {"dropped": 3}}}, "corpus.json, set test: key 'dropped' must be a mapping"),
    ],
)
def test_read_corpus_facts_names_key_of_wrong_type(tmp_path, change, message):
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | change))
    with pytest.raises(UserError) as caught:
        read_corpus_facts(tmp_path)
    assert message in str(caught.value)
    assert "--stage 1" in str(caught.value)


def test_read_corpus_facts_accepts_absent_and_null_keys(tmp_path):
    (tmp_path / "corpus.json").write_text(
        json.dumps(CORPUS | {"paper": {"test": None}, "sets": None, "language": None})
    )
    assert read_corpus_facts(tmp_path)["paper"] == {"test": None}


def test_test_set_prefers_facts_of_the_set_over_those_of_the_corpus(tmp_path):
    own = {"metric": "cer", "normalizer": "mandarin", "language": "Chinese", "corpus": "aishell"}
    own["manifest"] = "../aishell/test.jsonl.gz"
    facts = {"test_sets": ["test", "zh"], "language": "English", "sets": {"zh": own}, "paper": {"zh": "AISHELL-1"}}
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | facts))
    corpus = read_corpus_facts(tmp_path)
    found = [test_set(corpus, name, tmp_path) for name in corpus["test_sets"]]
    assert found[0] == TestSet(
        "test", tmp_path / "test.jsonl.gz", "wer", "english", "English", "toy", "", "", str(tmp_path)
    )
    manifest = tmp_path / "../aishell/test.jsonl.gz"
    facts = ("cer", "mandarin", "Chinese", "aishell", "AISHELL-1", "")
    assert found[1] == TestSet("zh", manifest, *facts, str(tmp_path))


def test_read_corpus_facts_accepts_corpus_without_metric_if_every_test_set_has_one(tmp_path):
    facts = {"name": "mix", "test_sets": ["zh"], "sets": {"zh": {"metric": "cer", "normalizer": "mandarin"}}}
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    assert read_corpus_facts(tmp_path) == facts
    (tmp_path / "corpus.json").write_text(json.dumps(facts | {"test_sets": ["zh", "en"]}))
    with pytest.raises(UserError, match="key 'metric' is missing"):
        read_corpus_facts(tmp_path)


def cut(identity, text="a"):
    part = {"id": identity, "recording_id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "text": text}
    recording = {"id": identity, "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0}
    head = {"id": identity, "start": 0.0, "duration": 1.0, "channel": 0, "type": "MonoCut"}
    return {**head, "recording": recording, "supervisions": [part]}


def write_manifest(path, *cuts):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(each) + "\n" for each in cuts)


def broken_manifest(path, damage):
    write_manifest(path, *(cut(f"u{i}") for i in range(300)))
    content = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(content[:60])
    elif damage == "flipped byte":
        path.write_bytes(content[:80] + bytes([content[80] ^ 0xFF]) + content[81:])
    elif damage == "not gzip":
        path.write_bytes(b'{"id": 1}')
    elif damage == "twice":
        write_manifest(path, cut("u1"), cut("u1"))
    elif damage == "no cut":
        write_manifest(path, {"id": "u1"})
    elif damage == "zero bytes":
        path.write_bytes(b"")
    else:
        write_manifest(path)


@pytest.mark.parametrize(
    "damage",
    ["cut short", "flipped byte", "not gzip", "twice", "no cut", "zero bytes", "no lines"],
)
def test_read_references_names_damaged_manifest(tmp_path, damage):
    broken_manifest(tmp_path / "test.jsonl.gz", damage)
    with pytest.raises(UserError, match=r"test\.jsonl\.gz"):
        read_references(tmp_path / "test.jsonl.gz")


def hypotheses(tmp_path, content):
    path = tmp_path / "exp" / "base" / "decode" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return read_hypotheses(tmp_path / "exp" / "base" / "decode" / "test.jsonl", {"u1": "A"}, tmp_path / "test.jsonl.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": "u1", "hyp', "line 1: not valid JSON"),
        (b"\0" * 32, "line 1: not valid JSON"),
        (b'{"id": "u1", "hypothesis": "\xff", "stopped": true}\n', "line 1: not valid JSON in UTF-8"),
        (b"[" * 100_000, "line 1: not valid JSON"),
        (b"[]\n", "line 1: must be a mapping"),
        (json.dumps(ROW | {"id": ["u1"]}).encode(), "line 1: key 'id' must be text"),
        (json.dumps(ROW | {"hypothesis": 3}).encode(), "line 1: key 'hypothesis' must be text, got 3"),
        (json.dumps(ROW | {"hypothesis": None}).encode(), "line 1: key 'hypothesis' is missing"),
        (json.dumps(ROW | {"stopped": "yes"}).encode(), "line 1: key 'stopped' must be true or false"),
        (json.dumps(ROW | {"looping": 0}).encode(), "line 1: key 'looping' must be true or false"),
    ],
)
def test_read_hypotheses_names_line_of_damaged_file(tmp_path, content, message):
    with pytest.raises(UserError) as caught:
        hypotheses(tmp_path, content)
    assert f"test.jsonl, {message}" in str(caught.value)
    assert "--stage 4" in str(caught.value)


def test_read_hypotheses_says_if_decoding_did_not_finish(tmp_path):
    write_lines(tmp_path / "exp" / "base" / "decode" / "test.jsonl.part", [ROW])
    with pytest.raises(UserError, match=r"test\.jsonl: decoding did not finish, and its rows are in test\.jsonl\.part"):
        read_hypotheses(tmp_path / "exp" / "base" / "decode" / "test.jsonl", {"u1": "A"}, tmp_path / "test.jsonl.gz")
