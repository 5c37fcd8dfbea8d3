"""corpus.yaml: strict reading, and the contents of the three recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from arkasr.corpora.corpus import read_corpus_yaml, set_name
from arkasr.corpora.layouts.registry import LAYOUTS
from arkasr.corpora.synthetic.synth import ROLES
from arkasr.errors import UserError

EGS = Path(__file__).parents[2] / "egs"
NAMES = ("librispeech", "aishell", "wenetspeech")
PAPER_COLUMNS = {"AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other"}


def test_recipes_cover_table_1_with_its_metrics():
    corpora = [read_corpus_yaml(EGS / name / "corpus.yaml") for name in NAMES]
    for scale in ("mini", "paper"):
        columns = [column for corpus in corpora for column in corpus.scale(scale).test.values()]
        assert set(columns) == PAPER_COLUMNS and len(columns) == 5
    assert [(c.metric, c.language) for c in corpora] == [("wer", "English"), ("cer", "Chinese"), ("cer", "Chinese")]


@pytest.mark.parametrize("name", NAMES)
def test_mini_scale_uses_every_synthetic_part(name):
    corpus = read_corpus_yaml(EGS / name / "corpus.yaml")
    assert corpus.recipe in LAYOUTS
    facts = corpus.scale("mini")
    assert {role.part for role in ROLES[corpus.recipe]} <= {*facts.train, *facts.dev, *facts.test}


def test_set_name_is_lower_case_with_dashes():
    assert [set_name(part) for part in ("TEST_MEETING", "test-clean", "test")] == ["test-meeting", "test-clean", "test"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("metric: wer", "metrics: wer", r"unknown key metrics; did you mean metric\?"),
        ("metric: wer", "metric: ser", "metric must be one of"),
        ("metric: wer\n", "", "metric is missing"),
        ("    split_seed: 1\n", "", "scales.mini.split_seed is missing"),
        ("min_seconds: 0.3", "min_second: 0.3", r"did you mean scales.mini.min_seconds\?"),
        ("min_seconds: 0.3", "min_seconds: short", "scales.mini.min_seconds must be a number"),
        ("min_seconds: 0.3", "min_seconds: 30", "min_seconds must be at least 0 and below max_seconds=20.0, got 30.0"),
        ("    td: 0.3\n", "    td: 0.8\n", "their sum at most 1, got base=0.3 and td=0.8"),
        ("    base: 0.3\n", "    base: 0\n", "must be above 0"),
        ("dev: [dev-clean-2, dev-clean, dev-other]", "dev: []", "dev must name at least one part"),
        ("test: {test-clean: Libri clean,", "test: {td: Libri clean,", "would overwrite td.jsonl.gz"),
        ("recipe: librispeech", "recipe: librispeach", r"did you mean librispeech\?"),
    ],
)
def test_read_corpus_yaml_error_names_file_and_key(tmp_path, old, new, message):
    text = (EGS / "librispeech" / "corpus.yaml").read_text()
    assert old in text
    path = tmp_path / "corpus.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        read_corpus_yaml(path)
    assert str(path) in str(caught.value)


def test_unknown_scale_and_missing_file_are_named(tmp_path):
    with pytest.raises(UserError, match="--scale tiny: must be one of mini, paper"):
        read_corpus_yaml(EGS / "aishell" / "corpus.yaml").scale("tiny")
    with pytest.raises(UserError, match="nowhere.yaml"):
        read_corpus_yaml(tmp_path / "nowhere.yaml")
