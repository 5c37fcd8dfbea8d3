"""Speakers that are left out of training form test sets of their own, and known speakers are counted."""

from __future__ import annotations

import json
import shutil

import pytest
import soundfile
from corpora_on_disk import cuts, dropped, librispeech, tone

from arkasr.corpora.left_out import LEFT_OUT
from arkasr.corpora.prepare import prepare
from arkasr.errors import UserError

YAML = """
name: voices
layout: librispeech
language: English
train: [train-clean-5]
dev: [dev-clean-2]
test: [test-clean]
use: {base: labelled, td: all, opd: all}
"""


@pytest.fixture
def corpus(tmp_path):
    """A corpus with the training speakers 131 and 132. Speaker 131 is in the test part too, with other audio."""
    root = librispeech(tmp_path / "c")
    shutil.copytree(root / "train-clean-5" / "131", root / "test-clean" / "131")
    for number, path in enumerate(sorted((root / "test-clean").rglob("*.flac"))):
        soundfile.write(path, tone(1 + 0.1 * number), 16000)
    return root


def prepared(tmp_path, corpus, keys):
    yaml = tmp_path / "corpus.yaml"
    yaml.write_text(YAML + keys)
    prepare(str(yaml), "study", str(corpus), str(tmp_path / "data"), 1)
    return json.loads((tmp_path / "data" / "corpus.json").read_text())


def speakers(tmp_path, name):
    return [cut.supervisions[0].speaker for cut in cuts(tmp_path / "data", name)]


@pytest.mark.parametrize("name", ["131", '"131"'])
def test_left_out_speaker_forms_a_test_set_and_is_in_no_other(tmp_path, corpus, name):
    facts = prepared(tmp_path, corpus, f"left_out: {{new-voices: [{name}]}}\n")
    assert speakers(tmp_path, "new-voices") == ["131"] * 2
    for other in ("train", "base", "td", "opd"):
        assert speakers(tmp_path, other) == ["132"] * 2
    assert set(speakers(tmp_path, "test-clean")) == {"101", "102"}
    assert [(name, why) for name, _, why in dropped(tmp_path / "data")] == [("test-clean", LEFT_OUT)] * 2
    assert facts["test_sets"] == ["test-clean", "new-voices"] and facts["paper"]["new-voices"] is None
    assert facts["sets"]["new-voices"]["cuts"] == 2 and facts["sets"]["new-voices"]["language"] == "English"
    assert {name: each.get("speakers_in_training") for name, each in facts["sets"].items()} == {
        "train": None, "base": None, "td": None, "opd": None, "dev": 0, "test-clean": 0, "new-voices": 0,
    }  # fmt: skip


def test_known_speakers_of_a_test_set_are_counted_and_logged(tmp_path, corpus, capsys):
    (corpus / "test-clean" / "131" / "7").rename(corpus / "test-clean" / "131" / "8")
    for path in (corpus / "test-clean" / "131" / "8").iterdir():  # other ids, because equal ones are refused
        path.rename(path.with_name(path.name.replace("131-7", "131-8")))
    lines = corpus / "test-clean" / "131" / "8" / "131-8.trans.txt"
    lines.write_text(lines.read_text().replace("131-7", "131-8"))
    facts = prepared(tmp_path, corpus, "")
    assert facts["sets"]["test-clean"]["speakers_in_training"] == 1
    assert "test-clean: 1 of 3 speakers are also in the training set; to test on other" in capsys.readouterr().out


@pytest.mark.parametrize(
    "keys, message",
    [
        ("left_out: {new: [133]}", "left_out.new: speaker 133 has no usable utterance.*other speakers are 131, 132"),
        ("left_out: {new: [111]}", "left_out.new: speaker 111 has no usable utterance in the training parts"),
        ("left_out: {test-clean: [131]}", "left_out.test-clean must be a name of its own"),
        ("left_out: {dev: [131]}", "left_out.dev must be a name of its own"),
        ("left_out: {New: [131]}", "left_out.New must be a name of its own for a test set, in lower case"),
        ("left_out: {new: []}", r"left_out.new must be a list of speakers, got \[\]"),
        ("left_out: {new: 131}", "left_out.new must be a list of speakers, got 131"),
        ("left_out: {a: [131], b: ['131']}", "left_out.b names speaker 131, which a names too"),
        ("left_out: [131]", "left_out must be a mapping"),
    ],
)
def test_wrong_left_out_is_refused(tmp_path, corpus, keys, message):
    with pytest.raises(UserError, match=message):
        prepared(tmp_path, corpus, keys + "\n")
