"""Stage 1 of a mix: mix files and corpus.json from prepared members, and members that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shard_files import silent_cut

from arkasr.corpora.download import download
from arkasr.corpora.mix_corpus import MixScale, is_mix_corpus, read_mix_corpus
from arkasr.corpora.prepare import prepare
from arkasr.data.blocks import write_cuts
from arkasr.data.manifests import read_cuts
from arkasr.data.mix import read_mix
from arkasr.errors import UserError
from arkasr.evaluation.results_io import read_corpus_facts, test_set

ENGLISH = {"language": "English", "profiles": ["unicode", "paper"]}
CHINESE = {"language": "Chinese", "profiles": ["unicode", "wenet"]}
SIZES = {"train": 8, "base": 5, "td": 3, "opd": 5, "dev": 2, "test": 4}
RECIPE = "name: both\nlayout: mix\nmembers:\n  one: ../one/corpus.yaml\n  two: ../two/corpus.yaml\n"


def member(egs: Path, name: str, scoring: dict, factor: int, column: str | None = None) -> Path:
    """Write a prepared data directory of one member, `factor` times the sizes above, and its corpus.yaml."""
    data = egs / name / "data" / "mini"
    data.mkdir(parents=True)
    (egs / name / "corpus.yaml").write_text(f"name: {name}\nlayout: jsonl\n")
    sets = {}
    for kind, size in SIZES.items():
        write_cuts(data / f"{kind}.jsonl.gz", [silent_cut(f"{kind}-{i}", 3.6) for i in range(size * factor)])
        sets[kind] = {
            "cuts": size * factor,
            "hours": size * factor * 3.6 / 3600,
            "speakers": 1,
            "dropped": {"bad": factor},
        }
    facts = {"name": name, "corpus": name, "scale": "mini", "corpus_dir": "/nowhere", "parts": {}, "inputs": {}}
    facts |= scoring | {"sets": sets, "dev": "dev", "test_sets": ["test"], "paper": {"test": column} if column else {}}
    (data / "corpus.json").write_text(json.dumps(facts))
    return data


@pytest.fixture
def egs(tmp_path):
    member(tmp_path, "one", ENGLISH, 1)
    member(tmp_path, "two", CHINESE, 4, "AISHELL-1")
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "corpus.yaml").write_text(RECIPE)
    return tmp_path


def prepare_mix(egs: Path, corpus_dir: str | None = None, scale: str = "mini") -> Path:
    data = egs / "mix" / "data" / scale
    corpus_dir = corpus_dir or f"{egs}/{{member}}/data/mini"
    prepare(str(egs / "mix" / "corpus.yaml"), scale, corpus_dir, str(data), 1)
    return data


def scales(egs: Path, text: str) -> None:
    (egs / "mix" / "corpus.yaml").write_text(f"{RECIPE}scales:\n  mini: {text}\n")


def test_test_sets_keep_profiles_language_and_column(egs):
    data = prepare_mix(egs)
    corpus = read_corpus_facts(data)
    first, second = (test_set(corpus, name, data) for name in corpus["test_sets"])
    assert (first.name, first.metric, first.profiles, first.language, first.corpus, first.column) == (
        *("one-test", "wer", ("unicode", "paper"), "English", "one", ""),
    )
    assert (second.name, second.metric, second.profiles, second.language, second.corpus, second.column) == (
        *("two-test", "cer", ("unicode", "wenet"), "Chinese", "two", "AISHELL-1"),
    )
    assert [len(list(read_cuts(str(each.manifest)))) for each in (first, second)] == [4, 16]
    assert not list(data.glob("*.jsonl.gz"))  # nothing is copied


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("{power: 1}", [None, None]),
        ("{power: 0}", [0.5, 0.5]),
        ("{power: 0.5}", [0.333333, 0.666667]),  # the hours are 1 and 4
        ("{weights: {one: 3, two: 1}}", [0.75, 0.25]),
    ],
)
def test_training_sets_have_the_weights_and_others_have_none(egs, text, weights):
    scales(egs, text)
    data = prepare_mix(egs)
    for name in SIZES.keys() - {"test"}:
        found = [each.weight for each in read_mix(data / f"{name}.mix.yaml")]
        assert found == (weights if name in ("train", "base", "opd") else [None, None])
        assert len(list(read_cuts(str(data / f"{name}.mix.yaml")))) == SIZES[name] * 5
    base = json.loads((data / "corpus.json").read_text())["sets"]["base"]
    assert (base["cuts"], base["hours"], base["dropped"]) == (25, pytest.approx(0.025), {"bad": 5})
    shares = [each["share"] for each in base["members"].values()]
    assert shares == pytest.approx([0.2, 0.8] if weights[0] is None else weights, abs=1e-4)


def test_link_to_another_disk_and_second_call(egs, capsys):
    (egs / "disk").mkdir()
    (egs / "mix" / "data").symlink_to(egs / "disk")
    data = prepare_mix(egs)
    before = (data / "base.mix.yaml").read_bytes()
    assert len(list(read_cuts(str(data / "base.mix.yaml")))) == 25
    times = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    prepare_mix(egs)
    assert "already prepared, and its members have not changed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == times
    scales(egs, "{power: 0}")
    prepare_mix(egs)
    assert (data / "base.mix.yaml").read_bytes() != before


def test_set_without_cuts_in_one_member_has_the_others(egs, capsys):
    facts = json.loads((egs / "one" / "data" / "mini" / "corpus.json").read_text())
    facts["sets"]["base"]["cuts"] = 0
    (egs / "one" / "data" / "mini" / "corpus.json").write_text(json.dumps(facts))
    data = prepare_mix(egs)
    assert "base: nothing from one, which have no cuts for it" in capsys.readouterr().out
    assert [each.name for each in read_mix(data / "base.mix.yaml")] == ["two"]
    assert [each.name for each in read_mix(data / "opd.mix.yaml")] == ["one", "two"]


def test_member_that_is_not_prepared_is_named_with_the_command(egs):
    (egs / "two" / "data" / "mini" / "corpus.json").unlink()
    message = rf"member two of .*mix/corpus.yaml: .* is not prepared .*; run arkasr prepare {egs}/two/corpus.yaml"
    with pytest.raises(UserError, match=rf"{message} --scale mini --corpus_dir DIR --datadir {egs}/two/data/mini"):
        prepare_mix(egs)
    assert not (egs / "mix" / "data").exists()


def test_other_folders_and_scales_are_refused(egs):
    with pytest.raises(UserError, match=r"is prepared at scale mini, not paper; name another folder"):
        prepare_mix(egs, scale="paper")
    with pytest.raises(UserError, match=r"--corpus_dir /data: a mix is prepared from the data folders"):
        prepare_mix(egs, "/data")
    with pytest.raises(UserError, match="a mix has no corpus of its own; download its members .*one/corpus.yaml, "):
        download(str(egs / "mix" / "corpus.yaml"), "mini", str(egs / "c"))
    data = prepare_mix(egs)
    (egs / "mix" / "corpus.yaml").write_text(RECIPE.replace("name: both", "name: other"))
    with pytest.raises(UserError, match=r"holds both at scale mini, not other at scale mini; use another --datadir"):
        prepare_mix(egs)
    (data / "own.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files that stage 1 did not write"):
        prepare(str(egs / "mix" / "corpus.yaml"), "mini", f"{egs}/{{member}}/data/mini", str(egs / "one"), 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  two: ../two/corpus.yaml\n", "", "members must name at least two corpora, got 1"),
        ("two: ../two", "two: ../one", "two members have this corpus.yaml; name each once"),
        ("two: ../two", "two: ../three", "members.two .*three/corpus.yaml: no such file; name the corpus.yaml"),
        ("two: ../two/corpus.yaml", "two: corpus.yaml", "members.two .*: is a mix itself; name its members here"),
        ("  two:", "  a b:", "members must have names of letters, digits, .*got 'a b'"),
        ("members:", "memebrs:", "unknown key memebrs; did you mean members"),
        ("name: both", "name: ''", "name must be one line"),
    ],
)
def test_wrong_mixes_are_refused(egs, old, new, message):
    path = egs / "mix" / "corpus.yaml"
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        read_mix_corpus(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{weights: {one: 0, two: 1}}", r"scales.mini.weights.one must be above 0 and finite, got 0; to leave"),
        ("{weights: {one: 1, two: -1}}", r"weights.two must be above 0 and finite, got -1"),
        ("{weights: {one: 1, two: .nan}}", r"weights.two must be a number, got '.nan'"),
        ("{weights: {one: 1}}", r"scales.mini.weights must name exactly the members one, two, got one"),
        ("{weights: {one: 1, too: 1}}", r"weights must name exactly the members one, two, got one, too"),
        ("{power: 2}", r"scales.mini.power must be from 0 to 1, got 2"),
        ("{power: 0.5, weights: {one: 1, two: 1}}", r"scales.mini.power must not be set together with weights"),
    ],
)
def test_wrong_weights_are_refused(egs, text, message):
    scales(egs, text)
    with pytest.raises(UserError, match=message):
        prepare_mix(egs)


def test_recipe_of_the_repository_is_a_mix_of_the_three_others():
    path = Path(__file__).parents[2] / "egs" / "mix" / "corpus.yaml"
    assert is_mix_corpus(path) and list(read_mix_corpus(path).members) == ["aishell", "wenetspeech", "librispeech"]
    assert not is_mix_corpus(path.parents[1] / "aishell" / "corpus.yaml")
    shares = MixScale(0.5).weights_for({"wenetspeech": 10_000, "librispeech": 960, "aishell": 150})
    assert [round(100 * share) for share in shares.values()] == [70, 22, 9]  # as its comment says
