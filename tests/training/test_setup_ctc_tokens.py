"""Runs whose CTC head has tokens of its own: they are kept in the run, in `final`, and by the runs that continue it."""

from __future__ import annotations

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics, write_dev
from lhotse import CutSet
from tokenizers import Tokenizer
from training_runs import train_until
from transformers import AutoProcessor, AutoTokenizer

from arkasr.config.load import load_config
from arkasr.errors import UserError
from arkasr.model.ctc_head import FILE, TOKENIZER
from arkasr.model.loading import load_speech_lm
from arkasr.training.dev_error import DevError
from arkasr.training.final_model import is_finished
from arkasr.training.run_tokenizer import ctc_tokenizer
from arkasr.training.train import train

OWN = "train.ctc_vocab_size=24"
AVERAGED = [OWN, "train.average=2"]


@pytest.fixture(scope="module")
def own(conf, datadir, tmp_path_factory):
    """An experiment with a short Base whose head has own tokens. Tests must not write into it."""
    expdir = tmp_path_factory.mktemp("own")
    train(str(conf), "base", str(expdir), str(datadir), AVERAGED)
    return expdir


def vocabulary(file) -> dict[str, int]:
    return Tokenizer.from_file(str(file)).get_vocab()


def test_final_mean_of_checkpoints_has_the_tokens_and_their_digest(own):
    run = own / "base"
    assert len(json.loads((run / "run.json").read_text())["final"]["checkpoints"]) == 2
    assert vocabulary(run / "final" / TOKENIZER) == vocabulary(run / TOKENIZER)
    sums = (run / "final" / "SHA256SUMS").read_text()
    assert FILE in sums and TOKENIZER in sums and is_finished(run)


def test_own_tokens_are_short_pieces_of_the_text_for_tokenizers(own, datadir):
    letters = set("".join(cut.supervisions[0].text for cut in CutSet.from_file(datadir / "train.jsonl.gz")))
    tokens = vocabulary(own / "base" / TOKENIZER)
    model = AutoTokenizer.from_pretrained(own / "base" / "final")
    pieces = {token for token in tokens if not token.startswith("<")}
    assert {char.replace(" ", "\u2581") for char in letters} <= pieces and len(pieces) == 24 < len(
        model.get_vocab()
    ) - 256
    ids = Tokenizer.from_file(str(own / "base" / TOKENIZER)).encode("three green dogs sleep").ids
    assert len(ids) > len(model.encode("three green dogs sleep"))


def test_folder_loads_with_the_tokenizer_of_the_model(own):
    folder = own / "base" / "final"
    expected = AutoTokenizer.from_pretrained(own / "base" / "tokenizer").get_vocab()
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == expected != vocabulary(folder / TOKENIZER)
    assert AutoProcessor.from_pretrained(folder).tokenizer.get_vocab() == expected
    lm = load_speech_lm(str(folder))
    assert lm.tokenizer.get_vocab() == expected and lm.ctc_head is None and lm.ctc_tokenizer is None


@pytest.mark.parametrize("size", ["0", "12", "24"])
def test_next_run_keeps_the_tokens_of_its_parent(own, conf, datadir, tmp_path, size):
    words = f"model.path={own}/base/final", f"train.ctc_vocab_size={size}", "tokenizer.text=absent.txt"
    lm = make_trainer(conf, "base", tmp_path, datadir, *words).student
    assert lm.ctc_tokenizer.get_vocab() == vocabulary(own / "base" / TOKENIZER)
    assert lm.ctc_head.out_features == len(vocabulary(own / "base" / TOKENIZER)) + 1
    assert not (tmp_path / "base" / TOKENIZER).exists()


def test_final_model_of_the_next_run_has_them_too(own, conf, datadir, tmp_path):
    train(str(conf), "base", str(tmp_path), str(datadir), [f"model.path={own}/base/final", "train.steps=2"])
    assert vocabulary(tmp_path / "base" / "final" / TOKENIZER) == vocabulary(own / "base" / TOKENIZER)


def test_head_without_own_tokens_continues_with_those_of_the_model(trained, conf, datadir, tmp_path, capsys):
    words = f"model.path={trained}/base/final", OWN
    lm = make_trainer(conf, "base", tmp_path, datadir, *words).student
    assert lm.ctc_tokenizer is None and lm.ctc_head.out_features == len(lm.tokenizer) + 1
    assert f"the CTC head continues from {trained}/base/final/{FILE}" in capsys.readouterr().out


def test_parent_without_head_gets_one_with_own_tokens(trained, conf, datadir, tmp_path):
    folder = shutil.copytree(trained / "base" / "final", tmp_path / "parent")
    for name in (FILE, "SHA256SUMS"):
        (folder / name).unlink()
    lm = make_trainer(conf, "base", tmp_path, datadir, f"model.path={folder}", OWN).student
    assert lm.ctc_tokenizer.get_vocab() == vocabulary(tmp_path / "base" / TOKENIZER)


@pytest.mark.parametrize(("content", "message"), [("{", "the file was changed or damaged"), (None, "missing, but")])
def test_damaged_tokens_of_the_parent_are_named(own, conf, datadir, tmp_path, content, message):
    folder = shutil.copytree(own / "base" / "final", tmp_path / "parent")
    (folder / TOKENIZER).unlink() if content is None else (folder / TOKENIZER).write_text(content)
    with pytest.raises(UserError, match=f"^{re.escape(str(folder / TOKENIZER))}: {message}"):
        make_trainer(conf, "base", tmp_path / "next", datadir, f"model.path={folder}")


def test_damaged_tokens_of_the_run_are_named(conf, datadir, tmp_path):
    make_trainer(conf, "base", tmp_path, datadir, OWN)
    file = tmp_path / "base" / TOKENIZER
    content = file.read_text()
    file.write_text(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}: cannot be read .*; delete it to learn the same"):
        make_trainer(conf, "base", tmp_path, datadir, OWN)
    file.unlink()
    make_trainer(conf, "base", tmp_path, datadir, OWN)
    assert file.read_text() == content


@pytest.mark.slow
def test_resumed_run_has_the_same_tokens_and_results(own, conf, datadir, tmp_path, monkeypatch):
    arguments = str(conf), "base", str(tmp_path), str(datadir), AVERAGED
    train_until(monkeypatch, 4, *arguments)
    before = (tmp_path / "base" / TOKENIZER).read_bytes()
    monkeypatch.setattr("arkasr.training.run_tokenizer.train_tokenizer", None)  # nothing is learned again
    train(*arguments)
    assert (tmp_path / "base" / TOKENIZER).read_bytes() == before == (own / "base" / TOKENIZER).read_bytes()
    for name in (FILE, "model.safetensors"):
        assert (tmp_path / "base/final" / name).read_bytes() == (own / "base/final" / name).read_bytes()
    assert [row["ctc"] for row in metrics(tmp_path / "base")] == [row["ctc"] for row in metrics(own / "base")]


def reference_texts(lm, batch) -> list[str]:
    """Join the pieces of the best classes clip by clip, without repeats and blanks."""
    texts, blank = [], lm.ctc_tokenizer.get_vocab_size()
    for waveform in batch.waveforms:
        with torch.no_grad():
            best = lm.ctc_head(lm.encode_audio([waveform])[0]).argmax(-1).tolist()
        kept = [one for one, before in zip(best, [blank, *best]) if one not in (blank, before)]
        texts.append("".join(map(lm.ctc_tokenizer.id_to_token, kept)).replace("\u2581", " ").strip())
    return texts


def spell_letters(lm) -> None:
    """Give the head random weights, and bytes and special tokens no chance."""
    torch.manual_seed(0)
    torch.nn.init.normal_(lm.ctc_head.weight)
    ids = [index for token, index in lm.ctc_tokenizer.get_vocab().items() if token.startswith("<")]
    lm.ctc_head.bias.data[ids] = -1e4


def test_dev_error_of_the_head_is_by_its_own_tokens(own, conf, datadir, tmp_path):
    changes = [f"model.path={own}/base/final", "train.eval_clips=4", f"data.dev={tmp_path}/dev.jsonl.gz"]
    trainer = make_trainer(conf, "base", tmp_path, datadir, *changes)
    spell_letters(trainer.student)
    texts = reference_texts(trainer.student.eval(), clips(datadir / "dev.jsonl.gz"))
    expected = write_dev(tmp_path, datadir, texts)
    rates, _ = DevError(trainer.config, trainer.ranks, trainer.phases).measure(trainer.student)
    assert any(texts) and 0 < rates["dev_error_ctc"] < 1
    assert rates["dev_error_ctc"] == pytest.approx(expected)


def test_rank_without_the_file_of_rank_0_is_refused(conf, datadir, tmp_path):
    """Otherwise it would train a head of another size than the other ranks."""
    config = load_config(str(conf), "base", str(tmp_path), str(datadir), ["train.ctc_vocab_size=12"])
    other = SimpleNamespace(first=False, rank=1, barrier=lambda: None)
    with pytest.raises(UserError, match=f"{re.escape(TOKENIZER)}: rank 1 does not find this file"):
        ctc_tokenizer(config, tmp_path / "base", other)
