"""The name of a corpus and the paper's columns: only the published data get them."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora_on_disk import EGS, MAKERS, aishell, librispeech, recipe, run
from synthetic_corpus import tiny

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.download import download
from arkasr.corpora.published import TEST_SETS, label, own_name
from arkasr.corpora.set_rows import PartCounts

COLUMNS = {"test-clean": "Libri clean", "test-other": "Libri other"}


def part(utterances: int, speakers: int = 1, unreadable: int = 0, spare: int = 0) -> PartCounts:
    names = {str(number) for number in range(speakers)}
    return PartCounts(utterances, utterances + unreadable, utterances + unreadable + spare, names)


def labelled(read: dict[str, PartCounts], name: str = "librispeech", synthetic: bool = False, scale: str = "paper"):
    corpus = read_corpus_yaml(EGS / name / "corpus.yaml")
    facts = corpus.scale(scale)
    return label(corpus, facts, Path("/data/mine"), synthetic, read, [test for test in facts.test if test in read])


def test_published_test_sets_get_the_name_and_the_columns():
    read = {"test-clean": part(2620, 40), "test-other": part(2939, 33), "dev-clean": part(2703, 40, spare=3)}
    got = labelled(read)
    assert (got.name, got.paper) == ("librispeech", COLUMNS)
    assert labelled(read, scale="mini").paper == COLUMNS
    assert labelled({"test": part(7176, 20)}, "aishell").paper == {"test": "AISHELL-1"}
    wenet = {"TEST_NET": part(24774), "TEST_MEETING": part(8370), "L": part(5)}
    assert labelled(wenet, "wenetspeech").paper == {"test-net": "Wenet net", "test-meeting": "Wenet meeting"}


@pytest.mark.parametrize(
    "read, name, paper",
    [
        # own training data: the test set is the paper's, the corpus is not the published one
        ({"train-clean-100": part(7), "test-clean": part(2620, 40)}, "mine", {"test-clean": "Libri clean"}),
        # one unreadable file: the published corpus, but not all of the paper's test set
        ({"test-clean": part(2619, 40, unreadable=1)}, "librispeech", {"test-clean": None}),
        ({"test-clean": part(2620, 39)}, "librispeech", {"test-clean": None}),
        (
            {"test-clean": part(2620, 40), "test-other": part(4, 2)},
            "mine",
            {"test-clean": "Libri clean", "test-other": None},
        ),
    ],
)
def test_other_data_get_their_own_name_and_no_column(capsys, read, name, paper):
    got = labelled(read)
    assert (got.name, got.paper) == (name, paper)
    out = capsys.readouterr().out
    assert ("results are labelled mine" in out) == (name == "mine")
    assert ("gets no column of the paper" in out) == (None in paper.values())


def test_the_synthetic_miniature_keeps_name_and_columns():
    got = labelled({"test-clean": part(4), "test-other": part(4)}, synthetic=True, scale="mini")
    assert (got.name, got.paper) == ("librispeech", COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_prepare_labels_another_corpus_in_the_layout_by_its_folder(tmp_path, name):
    for scale in ("mini", "paper"):
        # training parts have other names at scale paper
        parts = {"parts": ("train-clean-100", "dev-clean", "test-clean")} if name == "librispeech" else {}
        facts = run(name, MAKERS[name](tmp_path / f"my corpus {scale}", **parts), tmp_path / scale, scale=scale)
        assert facts["name"] == f"my-corpus-{scale}" and facts["corpus"] == name
        assert set(facts["paper"].values()) == {None} and list(facts["paper"]) == facts["test_sets"]


def test_a_recipe_of_its_own_names_its_corpus(tmp_path):
    yaml = recipe(tmp_path, "aishell", ("name: aishell", "name: dialects"))
    assert run("aishell", aishell(tmp_path / "c"), tmp_path / "data", yaml)["name"] == "dialects"


@pytest.mark.slow
def test_prepare_knows_the_corpus_of_stage_0_at_scale_mini_only(tmp_path):
    pytest.importorskip("espeakng_loader")
    yaml = tiny(tmp_path, "librispeech")
    download(yaml, "mini", str(tmp_path / "c"))
    facts = run("librispeech", tmp_path / "c", tmp_path / "data", yaml)
    assert (facts["name"], facts["paper"]) == ("librispeech", COLUMNS)
    parts = ("train-clean-100", "dev-clean")
    facts = run("librispeech", librispeech(tmp_path / "c", parts), tmp_path / "data2", yaml, "paper")
    assert (facts["name"], set(facts["paper"].values())) == ("c", {None})


@pytest.mark.parametrize(
    "folder, name",
    [
        ("/data/mine", "mine"),
        ("/data/my corpus (v2)", "my-corpus-v2"),
        ("/data/digits/LibriSpeech", "digits-LibriSpeech"),
        ("/AISHELL-1", "own-AISHELL-1"),
        ("/data/aishell1", "data-aishell1"),
        ("/", "corpus"),
        ("/data/語料", "語料"),
    ],
)
def test_own_name_is_never_a_published_one(folder, name):
    assert own_name(Path(folder)) == name


def test_every_column_of_table_1_has_its_test_set():
    corpora = [read_corpus_yaml(EGS / name / "corpus.yaml") for name in MAKERS]
    assert {column for corpus in corpora for column in corpus.scales.paper.test.values()} == set(TEST_SETS)
