"""The run's tokenizer: text without words is refused, and characters without tokens are reported."""

from __future__ import annotations

import re

import pytest
from corpus_fixture import make_trainer
from lhotse import CutSet

from arkasr.errors import UserError


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
    with pytest.raises(UserError, match=r"`tokenizer.text` .*silent.jsonl.gz: no cut has a transcript"):
        make_trainer(conf, "base", tmp_path, datadir, f"tokenizer.text={tmp_path}/silent.jsonl.gz")
