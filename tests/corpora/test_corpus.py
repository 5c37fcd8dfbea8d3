"""corpus.yaml: strict reading, and the contents of the three recipes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from arkasr.corpora.corpus import Corpus, PaperColumn, read_corpus_yaml, set_name
from arkasr.corpora.layouts.registry import LAYOUTS
from arkasr.corpora.synthetic.synth import ROLES
from arkasr.errors import UserError
from arkasr.evaluation.normalize import NORMALIZERS
from arkasr.evaluation.paper_numbers import COLUMNS
from arkasr.evaluation.results_io import METRICS

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
        ("normalizer: english", "normalizer: klingon", "normalizer must be one of 'english', 'mandarin', 'raw'"),
        ("normalizer: english", "normalizer: englsh", "did you mean english"),
        ("test-clean: Libri clean", "test-clean: Libri cleen", "scales.mini.test.test-clean must be one of"),
        ("text_case: keep", "text_case: title", "scales.mini.text_case must be one of 'keep', 'lower', 'upper'"),
        ("channels: mix", "channels: left", "channels must be mix, refuse, or the number of a channel"),
        ("channels: mix", "channels: -1", "channels must be mix, refuse, or the number of a channel"),
        ("channels: mix", "channels: true", "channels must be mix, refuse, or the number of a channel"),
        ("channels: mix", "channels: [0]", "channels must be mix, refuse, or the number of a channel"),
        ("name: librispeech", 'name: ""', "name must be one line of 1 to 100 characters"),
        ("name: librispeech", 'name: "a\\nb"', "name must be one line of 1 to 100 characters"),
        ("seed: 20", "seed: -1", r"miniature.seed must be from 0 to 2\^63 - 1, got -1"),
        ("seed: 20", f"seed: {10**400}", "miniature.seed"),
        ("seed: 20", "seed: 1.5", "miniature.seed must be a whole number"),
        ("test-clean: 150", "test-clean: 0", "miniature.sizes.test-clean must be from 1 to 1000000, got 0"),
        ("test-clean: 150", "test-clean: -3", "miniature.sizes.test-clean must be from 1 to 1000000, got -3"),
        ("test-clean: 150", f"test-clean: {10**30}", "miniature.sizes.test-clean"),
        ("min_seconds: 0.3", "min_seconds: -1", "min_seconds must be at least 0"),
        ("min_seconds: 0.3", f"min_seconds: {10**400}", "scales.mini.min_seconds must be"),
        ("min_seconds: 0.3", "min_seconds: .nan", "scales.mini.min_seconds must be"),
        ("max_seconds: 20.0", "max_seconds: .inf", "both must be finite"),
        ("max_seconds: 20.0", "max_seconds: 0", "min_seconds must be at least 0 and below max_seconds=0.0"),
        ("    base: 0.3\n", "    base: 1e400\n", "scales.mini.base"),
        ("test: {test-clean:", "test: {TEST/../x: null, test-clean:", "test must name parts of .*got 'TEST/../x'"),
        ("test: {test-clean:", "test: {../x: null, test-clean:", "test must name parts of .*got '../x'"),
        ("test: {test-clean:", 'test: {"": null, test-clean:', "test must name parts of .*got ''"),
        ("test: {test-clean:", 'test: {"a\\0": null, test-clean:', "test must name parts of"),
        ("test: {test-clean:", "test: {-rf: null, test-clean:", "test must name parts of .*got '-rf'"),
        (
            "test: {test-clean:",
            "test: {TEST_CLEAN: null, test-clean:",
            "test-clean would overwrite",
        ),
        ("train: [train-clean-5", "train: [/etc, train-clean-5", "train must name parts of .*got '/etc'"),
        ("dev: [dev-clean-2", "dev: [dev-clean, dev-clean-2", "dev must name each part once, got dev-clean twice"),
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


def test_choices_are_those_of_scoring():
    hints = get_type_hints(Corpus)
    assert set(get_args(hints["normalizer"])) == set(NORMALIZERS) and set(get_args(hints["metric"])) == set(METRICS)
    assert get_args(PaperColumn) == COLUMNS


@pytest.mark.parametrize("channels", ["mix", "refuse", 0, 3])
def test_channels_are_a_policy_or_a_number(tmp_path, channels):
    text = (EGS / "librispeech" / "corpus.yaml").read_text()
    (tmp_path / "corpus.yaml").write_text(text.replace("channels: mix", f"channels: {channels}"))
    assert read_corpus_yaml(tmp_path / "corpus.yaml").channels == channels


def test_unknown_scale_and_missing_file_are_named(tmp_path):
    with pytest.raises(UserError, match="--scale tiny: must be one of mini, paper"):
        read_corpus_yaml(EGS / "aishell" / "corpus.yaml").scale("tiny")
    with pytest.raises(UserError, match="nowhere.yaml"):
        read_corpus_yaml(tmp_path / "nowhere.yaml")
