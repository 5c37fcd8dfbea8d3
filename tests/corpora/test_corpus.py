"""corpus.yaml: strict reading, and the contents of the three recipes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from arkasr.corpora.corpus import Corpus, read_corpus_yaml
from arkasr.corpora.layouts.registry import LAYOUTS
from arkasr.corpora.scale import PaperColumn, set_name
from arkasr.corpora.synthetic.synth import ROLES, STUDY_ROLES
from arkasr.errors import UserError
from arkasr.evaluation.paper_numbers import CARD_COLUMNS, COLUMNS
from arkasr.scoring.profiles import default_profiles

EGS = Path(__file__).parents[2] / "egs"
NAMES = ("librispeech", "aishell", "wenetspeech")
PAPER_COLUMNS = {"AISHELL-1", "Wenet meeting", "Wenet net", "Libri clean", "Libri other"}


def test_recipes_cover_table_1_with_its_metrics():
    corpora = [read_corpus_yaml(EGS / name / "corpus.yaml") for name in NAMES]
    for scale in ("mini", "paper"):
        columns = [column for corpus in corpora for column in corpus.scale(scale).test.values()]
        assert set(columns) == PAPER_COLUMNS and len(columns) == 5
    assert [c.language for c in corpora] == ["English", "Chinese", "Chinese"]
    assert [c.profiles for c in corpora] == [[*default_profiles(c.language)] for c in corpora]


@pytest.mark.parametrize("name", NAMES)
def test_mini_scale_uses_every_synthetic_part(name):
    corpus = read_corpus_yaml(EGS / name / "corpus.yaml")
    assert corpus.layout in LAYOUTS
    facts = corpus.scale("mini")
    assert {role.part for role in ROLES[corpus.layout]} <= {*facts.train, *facts.dev, *facts.test}


def test_study_uses_every_synthetic_part_and_its_test_sets_are_large_enough():
    facts = read_corpus_yaml(EGS / "librispeech" / "corpus.yaml").scale("study")
    assert facts.miniature is not None and facts.miniature.kind == "study"
    sizes = facts.miniature.sizes
    assert {role.part for role in STUDY_ROLES["librispeech"]} == {*facts.train, *facts.dev, *facts.test} == set(sizes)
    assert all(sizes[part] >= 600 for part in facts.test)
    apart = [facts.use.base, facts.use.td, facts.use.teacher]
    assert sorted(part for parts in apart for part in parts) == sorted(facts.train)  # no part has two uses


def test_miniature_of_the_top_level_holds_for_scales_without_one():
    corpus = read_corpus_yaml(EGS / "librispeech" / "corpus.yaml")
    mini, study = corpus.scale("mini").miniature, corpus.scale("study").miniature
    assert mini.identity == {"seed": 20, "sizes": mini.sizes}  # as in the markers of earlier versions
    assert study.identity["kind"] == "study" and study.sizes != mini.sizes


def test_set_name_is_lower_case_with_dashes():
    assert [set_name(part) for part in ("TEST_MEETING", "test-clean", "test")] == ["test-meeting", "test-clean", "test"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("profiles: ", "profile: ", r"unknown key profile; did you mean profiles\?"),
        ("layout: librispeech\n", "", "layout is missing"),
        ("layout: librispeech", "recipe: librispeech", "recipe is now called layout"),
        ("language: English", "language: Englisch", r"language 'Englisch': is not a language .*did you mean English"),
        ("language: English\n", "", "language must be set for the layout librispeech"),
        ("min_seconds: 0.3", "min_second: 0.3", r"did you mean scales.mini.min_seconds\?"),
        ("min_seconds: 0.3", "min_seconds: short", "scales.mini.min_seconds must be a number"),
        ("min_seconds: 0.3", "min_seconds: 30", "min_seconds must be at least 0 and below max_seconds=20.0, got 30.0"),
        ("use: {base: 0.3, td: 0.3", "use: {base: 0.3, td: 0.8", "use.base and td must have a sum of at most 1, got"),
        ("use: {base: 0.3", "use: {base: 0", "scales.mini.use.base must be one of labelled, none, a share above 0"),
        (
            "use: {base: 0.3",
            "use: {base: unlabelled",
            "use.base must be one of labelled, none, a share.*got unlabelled",
        ),
        ("use: {base: 0.3", "use: {base: true", "use.base must be one of"),
        ("td: 0.3, opd: base", "td: base, opd: base", "use.td must be one of labelled, unlabelled, all, none, a share"),
        ("opd: base", "opd: [dev-clean]", "use.opd must name parts of the key `train` .*got dev-clean"),
        ("opd: base", "opd: []", "use.opd must name at least one part"),
        ("opd: base", "opd: base, teacher: 0.5", "use.teacher must be one of labelled, none, or a list of training p"),
        ("opd: base", "opd: base, teacher: all", "use.teacher must be one of labelled, none, or a list"),
        ("opd: base", "opd: base, teacher: [dev-clean]", "use.teacher must name parts of the key `train`"),
        ("test: {test-clean: Libri clean,", "test: {teacher: Libri clean,", "would overwrite teacher.jsonl.gz"),
        ("kind: study", "kind: large", "scales.study.miniature.kind must be one of 'mini', 'study'"),
        ("opd: base", "opds: base", r"did you mean scales.mini.use.opd\?"),
        ("    use: {base: 0.3, td: 0.3, opd: base}\n", "    base: 0.3\n", "mini.base is now called scales.mini.use"),
        ("layout: librispeech", "layout: librispeech\nmin_seconds: -3", "yaml: min_seconds must be at least 0"),
        ("layout: librispeech", "layout: librispeech\ncolumns: {audio: ' '}", "columns.audio must be the name of a"),
        (
            "layout: librispeech",
            "layout: librispeech\ncolumns: {sound: a}",
            "unknown key columns.sound; valid here: audio",
        ),
        ("test: {test-clean: Libri clean,", "test: {td: Libri clean,", "would overwrite td.jsonl.gz"),
        ("test: {test-clean: Libri clean,", "test: {opd: Libri clean,", "would overwrite opd.jsonl.gz"),
        ("layout: librispeech", "layout: librispeach", r"did you mean librispeech\?"),
        ("profiles: [unicode,", "profiles: [unicod,", r"profiles: scoring profile 'unicod': .*did you mean unicode\?"),
        ("profiles: [unicode,", "profiles: [paper,", "profiles must be different names of scoring profiles"),
        ("profiles: [unicode, paper, leaderboard-2026-08]", "profiles: []", "profiles must be different names"),
        ("profiles: [unicode, paper, leaderboard-2026-08]", "profiles: paper", "profiles must be a list"),
        ("profiles: [unicode,", "normalizer: english\nprofiles: [unicode,", "key normalizer was replaced by profiles"),
        ("profiles: [unicode,", "metric: wer\nprofiles: [unicode,", "key metric was replaced by profiles; remove it"),
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
        ("use: {base: 0.3", "use: {base: 1e400", "scales.mini.use.base"),
        ("use: {base: 0.3", "use: {base: .nan", "scales.mini.use.base"),
        ("dev: [dev-clean-2,", "dev: [train-clean-100,", "train-clean-100 must not be in both `train` and `dev`"),
        ("test: {test-clean:", "test: {train-clean-100:", "train-clean-100 must not be in both `train` and `test`"),
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
    assert get_args(PaperColumn) == (*COLUMNS, *CARD_COLUMNS)


@pytest.mark.parametrize("channels", ["mix", "refuse", 0, 3])
def test_channels_are_a_policy_or_a_number(tmp_path, channels):
    text = (EGS / "librispeech" / "corpus.yaml").read_text()
    (tmp_path / "corpus.yaml").write_text(text.replace("channels: mix", f"channels: {channels}"))
    assert read_corpus_yaml(tmp_path / "corpus.yaml").channels == channels


def test_messages_name_the_file_once(tmp_path):
    (tmp_path / "corpus.yaml").write_text("name: x\nlayout: jsonlines\n")
    with pytest.raises(UserError) as error:
        read_corpus_yaml(tmp_path / "corpus.yaml")
    assert str(error.value).count(str(tmp_path)) == 1 and "did you mean jsonl?" in str(error.value)


SHORT = "name: calls\nlayout: jsonl\nlanguage: de-AT\n"


def own(tmp_path: Path, text: str) -> Corpus:
    (tmp_path / "corpus.yaml").write_text(text)
    return read_corpus_yaml(tmp_path / "corpus.yaml")


def test_three_lines_describe_your_own_corpus(tmp_path):
    corpus = own(tmp_path, SHORT)
    assert corpus.scoring(["German"]) == {"language": "German", "profiles": ["unicode", "paper"]}
    for name in ("mini", "study", "paper"):
        scale = corpus.scale(name)
        assert (scale.train, scale.test) == (["train"], {"test": None}) and "dev" in scale.dev
        assert vars(scale.use) == {"base": "labelled", "td": "all", "opd": "all", "teacher": "none"}
    assert own(tmp_path, SHORT.replace("de-AT", "ja")).language == "Japanese"
    assert own(tmp_path, "name: a\nlayout: csv\n").language == ""


def test_languages_decide_the_profiles(tmp_path, capsys):
    corpus, two = own(tmp_path, SHORT), {"language": "", "profiles": ["unicode", "paper"]}
    assert corpus.scoring(["English"])["profiles"] == ["unicode", "paper", "leaderboard-2026-08"]
    assert corpus.scoring(["Cantonese"])["profiles"] == ["unicode", "paper", "wenet"]
    assert corpus.scoring(["French", "German"]) == two | {"scored_as": "French"} and corpus.scoring([]) == two
    assert corpus.scoring(["Cantonese", "Chinese"])["scored_as"] == "Cantonese"
    with pytest.raises(ValueError, match="has cuts in Chinese, German, which the scoring profile unicode does not"):
        corpus.scoring(["Chinese", "German"])
    both = own(tmp_path, SHORT + "profiles: [unicode-cer, paper, zh_tn]\n")
    assert "left out" not in capsys.readouterr().out
    assert both.scoring(["Chinese", "German"])["profiles"] == ["unicode-cer"]
    assert "scoring profile paper, zh_tn: left out for cuts in Chinese, German" in capsys.readouterr().out
    with pytest.raises(ValueError, match="has cuts in German, which the scoring profile zh_tn does not score"):
        own(tmp_path, SHORT + "profiles: [zh_tn]\n").scoring(["German"])


def test_keys_of_a_scale_at_the_top_level_hold_for_both_scales(tmp_path):
    corpus = own(tmp_path, SHORT + "train: [calls]\nmax_seconds: 9\ntest: [a, b]\nscales: {mini: {max_seconds: 5}}\n")
    mini = corpus.scale("mini")
    assert (mini.train, mini.test, mini.max_seconds) == (["calls"], {"a": None, "b": None}, 5.0)
    with pytest.raises(UserError, match="--scale paper: .*corpus.yaml has no section scales.paper; add it"):
        corpus.scale("paper")
    assert own(tmp_path, SHORT + "max_seconds: 9\n").scale("paper").max_seconds == 9.0


def test_test_parts_may_be_a_list_without_repetition(tmp_path):
    with pytest.raises(UserError, match="test must name each part once, got a twice"):
        own(tmp_path, SHORT + "test: [a, a]\n")
    with pytest.raises(UserError, match="test"):
        own(tmp_path, SHORT + "test: [1]\n")


def test_unknown_scale_and_missing_file_are_named(tmp_path):
    with pytest.raises(UserError, match="--scale tiny: must be one of mini, study, paper"):
        read_corpus_yaml(EGS / "aishell" / "corpus.yaml").scale("tiny")
    with pytest.raises(UserError, match="aishell/corpus.yaml has no section scales.study; add it, or use another"):
        read_corpus_yaml(EGS / "aishell" / "corpus.yaml").scale("study")
    with pytest.raises(UserError, match="nowhere.yaml"):
        read_corpus_yaml(tmp_path / "nowhere.yaml")
