"""Stage 0 speaks the sentences of a text file, and stage 1 reads what it wrote."""

from __future__ import annotations

import json

import pytest
import soundfile
from lhotse import CutSet
from synthetic_corpus import EGS, contents

from arkasr.corpora.corpus import read_corpus_yaml
from arkasr.corpora.download import download
from arkasr.corpora.prepare import prepare
from arkasr.corpora.synthetic.spoken_text import read_sentences, text_roles
from arkasr.errors import UserError

LINES = ["the cat sat", "Two  dogs ran.", "we   saw 3 birds", "it's late", "good night", "a red house"]


def _yaml(folder, sizes="{train: 4, dev: 2}", lines=LINES, layout="jsonl", extra="text: words.txt, kind: text"):
    (folder / "words.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "spoken.yaml"
    path.write_text(
        f"name: spoken\nlayout: {layout}\nlanguage: English\nminiature: {{seed: 3, sizes: {sizes}, {extra}}}\n"
    )
    return str(path)


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_sentences_are_spoken_once_and_prepared(tmp_path):
    pytest.importorskip("espeakng_loader")
    yaml, corpus, data = _yaml(tmp_path), tmp_path / "corpus", tmp_path / "data"
    download(yaml, "mini", str(corpus))
    train, dev = _rows(corpus / "train.jsonl"), _rows(corpus / "dev.jsonl")
    assert [row["text"] for row in train + dev] == [" ".join(line.split()) for line in LINES]
    for row in train + dev:
        samples, rate = soundfile.read(corpus / row["audio"])
        assert rate == 16000 and 0.5 < len(samples) / rate < 6 and abs(samples).max() > 0.01
    assert not {row["speaker"] for row in train} & {row["speaker"] for row in dev}
    prepare(yaml, "mini", str(corpus), str(data), 1, False)
    assert len(list(CutSet.from_file(data / "base.jsonl.gz"))) == 4


@pytest.mark.slow
def test_the_same_text_gives_the_same_files_and_another_one_replaces_them(tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    yaml, first, second = _yaml(tmp_path), tmp_path / "a", tmp_path / "b"
    download(yaml, "mini", str(first))
    download(yaml, "mini", str(second))
    assert contents(first) == contents(second)
    download(yaml, "mini", str(first))
    assert "already exists" in capsys.readouterr().out
    _yaml(tmp_path, "{other: 3}", LINES[1:])
    download(yaml, "mini", str(first))
    assert not (first / "train.jsonl").exists() and not (first / "audio" / "train").exists()
    assert [row["text"] for row in _rows(first / "other.jsonl")] == [" ".join(line.split()) for line in LINES[1:4]]


def test_sentences_beyond_one_block_have_other_speakers_and_their_own_names(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr("arkasr.corpora.synthetic.spoken_text._BLOCK", 2)
    download(_yaml(tmp_path, "{train: 6}"), "mini", str(tmp_path / "c"))
    rows = _rows(tmp_path / "c" / "train.jsonl")
    assert [row["speaker"] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    assert len({row["audio"] for row in rows}) == 6


def test_lines_without_a_letter_are_left_out_and_counted(tmp_path, capsys):
    path = tmp_path / "words.txt"
    path.write_text("one two\n\n...\n12 34\n\ufeffdrei vier\n", encoding="utf-8")
    assert read_sentences(path)[0] == "one two" and len(read_sentences(path)) == 2
    assert "3 of 5 lines have no letter" in capsys.readouterr().out


def test_sentences_without_sound_are_left_out_and_counted(tmp_path, capsys):
    pytest.importorskip("espeakng_loader")
    download(_yaml(tmp_path, "{train: 3}", ["one two", "\ua7f7", "three"]), "mini", str(tmp_path / "c"))
    rows = _rows(tmp_path / "c" / "train.jsonl")
    assert [row["text"] for row in rows] == ["one two", "three"] and rows[1]["audio"].endswith("0000002.flac")
    assert "train: 1 of 3 sentences give no sound" in capsys.readouterr().out
    with pytest.raises(UserError, match="no sentence of train gives sound with voices of English"):
        download(_yaml(tmp_path, "{train: 1}", ["\ua7f7"]), "mini", str(tmp_path / "d"))


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "must be UTF-8 text, but byte 0"),
        (b"12\n...\n", "no line with a letter"),
    ],
)
def test_text_that_cannot_be_spoken_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_sentences(path)
    assert str(path) in str(caught.value)


def test_parts_have_no_sentence_in_common_and_too_few_are_refused(tmp_path):
    train, dev = text_roles(LINES, {"train": 4, "dev": 2}, tmp_path)
    assert train.lines + dev.lines == tuple(LINES)
    with pytest.raises(UserError, match="has 6 sentences, but miniature.sizes needs 7"):
        text_roles(LINES, {"train": 7}, tmp_path)


@pytest.mark.parametrize(
    "layout, extra, message",
    [
        ("jsonl", "kind: text", "text must name a file for the kind text"),
        ("jsonl", "text: words.txt", "text must name a file for the kind text, and only for it"),
        ("jsonl", "kind: mini", "no such corpus in the layout jsonl"),
        ("librispeech", "kind: text, text: words.txt", "no such corpus in the layout librispeech"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(tmp_path, layout, extra, message):
    with pytest.raises(UserError, match=message):
        download(_yaml(tmp_path, layout=layout, extra=extra), "mini", str(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_a_folder_with_tables_of_the_user_is_not_changed(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "train.jsonl").write_text('{"audio": "a.wav", "text": "mine"}\n')
    before = contents(corpus)
    download(_yaml(tmp_path), "mini", str(corpus))
    assert contents(corpus) == before and "nothing to do" in capsys.readouterr().out


def test_the_repository_has_such_a_corpus():
    corpus = read_corpus_yaml(str(EGS / "speechocean762" / "spoken.yaml"))
    assert corpus.scale("study").miniature.kind == "text" and corpus.scale("study").text_case == "lower"
