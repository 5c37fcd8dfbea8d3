"""The run's tokenizer: its text from cuts or lines, text without words, and characters without tokens."""

from __future__ import annotations

import gzip
import re

import pytest
from corpus_fixture import make_trainer
from lhotse import CutSet

from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.training.run_tokenizer import _new_tokenizer


def test_characters_without_a_token_are_logged(conf, datadir, tmp_path, capsys):
    trainer = make_trainer(conf, "base", tmp_path, datadir, "tokenizer.vocab_size=10")
    found = re.search(
        r"tokenizer: (\d+) of (\d+) different characters \((\d+\.\d) % of the text\)", capsys.readouterr().out
    )
    # letters are single bytes, which have tokens, so nothing is reported for English
    assert found is None and len(trainer.student.tokenizer) < 300


def test_mandarin_text_trains_and_reports_characters_in_bytes(conf, datadir, tmp_path, capsys):
    cuts = CutSet.from_file(datadir / "train.jsonl.gz").to_eager()
    for number, cut in enumerate(cuts):
        cut.supervisions[0].text = "".join(chr(0x4E00 + 20 * number + i) for i in range(20)) + "\u7684" * 5
    cuts.to_file(tmp_path / "hanzi.jsonl.gz")
    trainer = make_trainer(conf, "base", tmp_path, datadir, f"tokenizer.text={tmp_path}/hanzi.jsonl.gz")
    found = re.search(
        r"tokenizer: (\d+) of (\d+) different characters \((\d+\.\d) % of the text\)", capsys.readouterr().out
    )
    assert found and int(found[2]) == 12 * 20 + 1 and 200 < int(found[1]) < 241 and 60 < float(found[3]) < 81
    text = "\u7684\u4e00\u9f98"
    ids = trainer.student.tokenizer.encode(text, add_special_tokens=False)
    assert trainer.student.tokenizer.decode(ids) == text


def test_cuts_without_transcripts_are_refused(conf, datadir, tmp_path):
    cuts = CutSet.from_file(datadir / "train.jsonl.gz").to_eager()
    for cut in cuts:
        cut.supervisions[0].text = " "
    cuts.to_file(tmp_path / "silent.jsonl.gz")
    with pytest.raises(UserError, match=r"`tokenizer.text` .*silent.jsonl.gz: has no text to train a tokenizer on"):
        make_trainer(conf, "base", tmp_path, datadir, f"tokenizer.text={tmp_path}/silent.jsonl.gz")


def backend(conf, datadir, run, path):
    """Return the tokenizer that a run learns from a text, as JSON."""
    config = load_config(conf, run, "{expdir}", str(datadir), [f"tokenizer.text={path}"])
    return _new_tokenizer(config).backend_tokenizer.to_str()


@pytest.mark.parametrize("run", ["base", "teacher"])
def test_lines_of_a_text_file_give_the_tokenizer_of_the_same_transcripts(conf, datadir, tmp_path, run):
    texts = [cut.supervisions[0].text for cut in CutSet.from_file(datadir / "train.jsonl.gz")]
    lines = "\n\n".join(f" {text}\t" for text in texts)  # empty lines and outer spaces do not count
    (tmp_path / "lines.txt").write_text(lines)
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress(lines.encode()))
    expected = backend(conf, datadir, run, datadir / "train.jsonl.gz")
    assert backend(conf, datadir, run, tmp_path / "lines.txt") == expected
    assert backend(conf, datadir, run, tmp_path / "lines.txt.gz") == expected


WHOLE = gzip.compress("ein S\u00e4tzchen\n".encode() * 500)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "has no text to train a tokenizer on; give cuts with transcripts or a text file"),
        ("blank.txt.gz", gzip.compress(b" \n\t\n"), "has no text to train a tokenizer on"),
        ("absent.txt", None, "cannot be read .*No such file.*; give a UTF-8 text file with one sentence per line"),
        ("absent.txt.gz", None, "cannot be read .*No such file"),
        ("latin.txt", "S\u00e4tzchen\n".encode("latin-1"), "cannot be read .*utf-8.*; give a UTF-8 text file"),
        ("latin.txt.gz", gzip.compress("S\u00e4tzchen\n".encode("latin-1")), "cannot be read .*utf-8"),
        ("cut.txt.gz", WHOLE[:-12], "cannot be read .*; give a UTF-8 text file"),
        ("changed.txt.gz", WHOLE[:20] + b"\xff" * 8 + WHOLE[28:], "cannot be read .*; give a UTF-8 text file"),
        ("plain.txt.gz", b"one two\n", "cannot be read .*; give a UTF-8 text file"),
    ],
)
def test_unusable_text_file_is_named_with_its_key(conf, datadir, tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^config key `tokenizer.text` {re.escape(str(path))}: {message}"):
        backend(conf, datadir, "base", path)
