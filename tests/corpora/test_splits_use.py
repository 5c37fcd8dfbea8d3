"""The key `use` of corpus.yaml, untranscribed audio, and test-only folders."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from corpora_on_disk import MAKERS, cuts, dropped, librispeech, run
from own_audio import clips, jsonl, write_audio, write_jsonl

from arkasr.corpora.prepare import prepare
from arkasr.errors import UserError

YAML = "name: calls\nlayout: jsonl\nlanguage: German\n"
# First digits of the SHA-256 digests of the sets that revision 990a055 prepared, before `use` had words and parts.
BEFORE = {
    "librispeech": "base eb8c63c7d0167cb1 dev 9b883d7a5fed881d td eb44eec9702d5c16 test-clean 9cc78eacd52f170f "
    "test-other 29d701dbe03ecd1d train 0e28a29c98948fc4",
    "aishell": "base 8fa175e7f1c1553a dev cd3789a156503f05 td ef8b209a23af0c35 test 75ed6e614275f719 "
    "train 57fabbcb7ede2ab9",
    "wenetspeech": "base da9d1ea4ee69d681 dev 56f535d2ed45be15 td 7adf7b939addcb2f test-meeting 6c3c900034621b8a "
    "test-net d477ef3e2c31cfd0 train 761658e0fb11a2d2",
}
PARTS = ("train-clean-5", "train-clean-100", "train-clean-360", "dev-clean", "test-clean", "test-other")


def prepare_own(root: Path, data: Path, more: str = "") -> dict:
    (root / "corpus.yaml").write_text(YAML + more)
    prepare(str(root / "corpus.yaml"), "mini", str(root), str(data), 1)
    return json.loads((data / "corpus.json").read_text())


def ids(data: Path, name: str) -> list[int]:
    return sorted(int(Path(cut["recording"]["sources"][0]["source"]).stem[-2:]) for cut in read_json_lines(data, name))


def read_json_lines(data: Path, name: str) -> list[dict]:
    with gzip.open(data / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", MAKERS)
def test_sets_of_published_layouts_are_those_of_the_former_version(tmp_path, name):
    root = librispeech(tmp_path / "c", parts=PARTS) if name == "librispeech" else MAKERS[name](tmp_path / "c")
    run(name, root, tmp_path / "data", scale="mini" if name == "librispeech" else "paper")
    found = {}
    for path in sorted((tmp_path / "data").glob("*.jsonl.gz")):
        with gzip.open(path, "rt") as lines:
            text = lines.read().replace(str(tmp_path / "data"), "{datadir}")
        found[path.name.removesuffix(".jsonl.gz")] = hashlib.sha256(text.encode()).hexdigest()[:16]
    words = BEFORE[name].split()
    expected = dict(zip(words[::2], words[1::2]))
    assert found == expected | {"opd": expected["base"]}  # OPD trains on the cuts of Base


@pytest.mark.parametrize(
    "use, base, td, opd",
    [
        ("", [4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
        ("use: {base: labelled, td: unlabelled, opd: all}", [4, 5], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        ("use: {base: none, td: none, opd: unlabelled}", [], [], [0, 1, 2, 3]),
        ("use: {base: labelled, td: none, opd: base}", [4, 5], [], [4, 5]),
        ("use: {base: none, td: labelled, opd: td}", [], [4, 5], [4, 5]),
        ("use: {td: unlabelled, opd: base+td}", [4, 5], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]),
        ("use: {base: [train], td: [train], opd: [train]}", [4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_use_chooses_the_training_cuts(tmp_path, use, base, td, opd):
    facts = prepare_own(jsonl(tmp_path, untranscribed=4), tmp_path / "data", use + "\n")
    assert [ids(tmp_path / "data", name) for name in ("base", "td", "opd")] == [base, td, opd]
    assert [facts["uses"][name]["cuts"] for name in ("base", "td", "opd")] == [len(base), len(td), len(opd)]
    untranscribed = [sum(number < 4 for number in numbers) for numbers in (base, td, opd)]
    assert [facts["sets"][name]["untranscribed"] for name in ("base", "td", "opd")] == untranscribed
    hours = [sum(clip.seconds for clip in clips() if int(clip.name[-2:]) in td) / 3600, facts["uses"]["td"]["hours"]]
    assert hours[0] == pytest.approx(hours[1], abs=1e-4)


def test_shares_are_of_the_transcribed_cuts(tmp_path):
    facts = prepare_own(jsonl(tmp_path, 2), tmp_path / "data", "use: {base: 0.5, td: 0.5, opd: 0.25}\n")
    base, td, opd = (ids(tmp_path / "data", name) for name in ("base", "td", "opd"))
    assert len(base) == len(td) == 2 and not set(base) & set(td) and {*base, *td} == {2, 3, 4, 5}
    assert (
        len(opd) == 1
        and opd[0] in base
        and facts["uses"]["opd"] == {"from": 0.25, "cuts": 1, "hours": facts["sets"]["opd"]["hours"]}
    )


def test_parts_of_base_leave_out_untranscribed_cuts_with_a_count(tmp_path, capsys):
    facts = prepare_own(jsonl(tmp_path, 4), tmp_path / "data", "use: {base: [train]}\n")
    assert facts["uses"]["base"] == {
        "from": ["train"],
        "cuts": 2,
        "hours": facts["sets"]["base"]["hours"],
        "left_out": 4,
    }
    output = capsys.readouterr().out
    assert "base: 4 cuts of use.base left out, because they have no transcript" in output
    assert re.search(r"train: 6 cuts, \d+ s, unnamed speakers, 4 without transcript", output)


def test_teacher_gets_a_set_of_its_own_only_if_use_names_one(tmp_path):
    root = jsonl(tmp_path, 4)
    facts = prepare_own(root, tmp_path / "none")
    assert "teacher" not in facts["train"] and not (tmp_path / "none" / "teacher.jsonl.gz").exists()
    facts = prepare_own(root, tmp_path / "data", "use: {base: none, teacher: [train]}\n")
    assert facts["train"] == ["train", "base", "td", "opd", "teacher"]
    assert ids(tmp_path / "data", "teacher") == [4, 5]  # those with a transcript
    assert facts["uses"]["teacher"]["cuts"] == 2 and facts["uses"]["teacher"]["left_out"] == 4


def test_untranscribed_cuts_are_written_without_text(tmp_path):
    prepare_own(jsonl(tmp_path, 4), tmp_path / "data")
    texts = {cut.id[5:7]: cut.supervisions[0].text for cut in cuts(tmp_path / "data", "opd")}
    assert [texts[f"{number:02d}"] for number in range(4)] == [None] * 4 and texts["04"] == clips()[4].text
    assert {cut.supervisions[0].language for cut in cuts(tmp_path / "data", "opd")} == {"German"}


def test_dev_and_test_sets_drop_untranscribed_rows_with_a_count(tmp_path):
    facts = prepare_own(jsonl(tmp_path, 9), tmp_path / "data", "dev: []\ntest: [test]\n")
    assert facts["sets"]["test"]["cuts"] == 1 and facts["sets"]["test"]["dropped"] == {
        "no transcript, which dev and test sets need": 1
    }
    assert [(name, reason) for name, _, reason in dropped(tmp_path / "data")] == [
        ("test", "no transcript, which dev and test sets need")
    ]
    with pytest.raises(UserError, match="part dev: none of its 2 utterances can be used; the first, .*: no transcript"):
        prepare_own(tmp_path, tmp_path / "data2")


def test_a_folder_with_test_sets_only_is_prepared(tmp_path, capsys):
    write_audio(tmp_path / "wav", clips())
    for part, numbers in {"calls": (0, 1, 2), "web": (3, 4)}.items():
        rows = [{"audio": f"wav/clip_{number:02d}.wav", "text": "ja"} for number in numbers]
        write_jsonl(tmp_path / f"{part}.jsonl", rows)
    facts = prepare_own(tmp_path, tmp_path / "data", "test: [calls, web]\n")
    assert facts["test_sets"] == ["calls", "web"] and facts["parts"]["train"] == facts["parts"]["dev"] == []
    counts = {name: each["cuts"] for name, each in facts["sets"].items()}
    assert counts == {"train": 0, "base": 0, "td": 0, "opd": 0, "dev": 0, "calls": 3, "web": 2}
    assert (
        "no part of the key `train` (train) is there, so this set is empty; it has calls, web"
        in capsys.readouterr().out
    )
    prepare_own(tmp_path, tmp_path / "data", "test: [calls, web]\n")
    assert "already prepared" in capsys.readouterr().out


def test_a_published_layout_may_hold_a_test_set_only(tmp_path):
    facts = run("librispeech", librispeech(tmp_path / "c", parts=("test-clean",)), tmp_path / "data")
    assert facts["test_sets"] == ["test-clean"] and facts["sets"]["train"]["cuts"] == 0


def test_languages_of_rows_decide_how_each_test_set_is_scored(tmp_path):
    write_audio(tmp_path, clips())
    languages = {"train": ("de", "zh", "fr"), "de": ("de",), "zh": ("Chinese",)}
    names = iter(clip.name for clip in clips())
    for part, row_languages in languages.items():
        rows = [{"audio": f"{next(names)}.wav", "text": "x", "language": language} for language in row_languages]
        write_jsonl(tmp_path / f"{part}.jsonl", rows)
    text = "name: web\nlayout: jsonl\ntest: [de, zh]\n"
    (tmp_path / "corpus.yaml").write_text(text)
    prepare(str(tmp_path / "corpus.yaml"), "mini", str(tmp_path), str(tmp_path / "data"), 1)
    facts = json.loads((tmp_path / "data" / "corpus.json").read_text())
    keys = ("language", "profiles")
    assert [facts["sets"]["de"][key] for key in keys] == ["German", ["unicode", "paper"]]
    assert [facts["sets"]["zh"][key] for key in keys] == ["Chinese", ["unicode", "paper", "wenet"]]
    assert (
        facts["language"] == "" and len({cut.supervisions[0].language for cut in cuts(tmp_path / "data", "train")}) == 3
    )
    (tmp_path / "train.jsonl").rename(tmp_path / "mixed.jsonl")
    (tmp_path / "corpus.yaml").write_text("name: web\nlayout: jsonl\ntest: [mixed]\n")
    with pytest.raises(UserError, match="corpus.yaml: set mixed has cuts in Chinese, French, German, which the"):
        prepare(str(tmp_path / "corpus.yaml"), "mini", str(tmp_path), str(tmp_path / "data2"), 1)
