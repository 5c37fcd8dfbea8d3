"""Test sets of a data directory. A damaged corpus.json gives one sentence that names the file and the remedy."""

from __future__ import annotations

import json

import pytest

from arkasr.errors import UserError
from arkasr.evaluation.results_io import TestSet, read_corpus_facts, test_set

CORPUS = {"name": "toy", "profiles": ["unicode"], "test_sets": ["test"]}
DAMAGE = {
    "zero-byte": b"",
    "zeros": b"\0" * 64,
    "torn": b'{"name": "to',
    "not-utf8": b'{"name": "\xff\xfe"}',
    "list": b"[1, 2]",
    "null": b"null",
}


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
        ({"profiles": "raw"}, "key 'profiles' must be a list, got 'raw'"),
        ({"profiles": [1]}, "key 'profiles' is missing or not a list of names"),
        ({"scored_as": 3}, "key 'scored_as' must be text, got 3"),
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
    own = {"profiles": ["wenet", "unicode"], "language": "Chinese", "corpus": "aishell"}
    own["manifest"] = "../aishell/test.jsonl.gz"
    facts = {"test_sets": ["test", "zh"], "language": "English", "sets": {"zh": own}, "paper": {"zh": "AISHELL-1"}}
    (tmp_path / "corpus.json").write_text(json.dumps(CORPUS | facts))
    corpus = read_corpus_facts(tmp_path)
    found = [test_set(corpus, name, tmp_path) for name in corpus["test_sets"]]
    assert found[0] == TestSet(
        "test", tmp_path / "test.jsonl.gz", "wer", ("unicode",), "English", "toy", "", "", str(tmp_path)
    )
    manifest = tmp_path / "../aishell/test.jsonl.gz"
    facts = ("mer", ("wenet", "unicode"), "Chinese", "aishell", "AISHELL-1", "")
    assert found[1] == TestSet("zh", manifest, *facts, str(tmp_path))


def test_read_corpus_facts_accepts_corpus_without_profiles_if_every_test_set_has_some(tmp_path):
    facts = {"name": "mix", "test_sets": ["zh"], "sets": {"zh": {"profiles": ["unicode"]}}}
    (tmp_path / "corpus.json").write_text(json.dumps(facts))
    assert read_corpus_facts(tmp_path) == facts
    (tmp_path / "corpus.json").write_text(json.dumps(facts | {"test_sets": ["zh", "en"]}))
    with pytest.raises(UserError, match="key 'profiles' is missing"):
        read_corpus_facts(tmp_path)
