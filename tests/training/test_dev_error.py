"""The dev error rate: absent where no reference word was read, and doubted where the transcripts repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_fixture import make_cut, make_trainer, metrics, write_cuts

from arkasr.data.mix import Member, write_mix
from arkasr.evaluation import dev_set
from arkasr.training.dev_error import DevError, show_example
from arkasr.training.train import train


def dev_manifest(datadir: Path, folder: Path, count: int, text: str = "one two", readable: int | None = None) -> str:
    cuts = [make_cut(folder, f"dev-{i:02d}", 0.5, text) for i in range(count)]
    for i in range(count if readable is None else readable, count):
        (folder / f"dev-{i:02d}.wav").unlink()
    (folder / "corpus.json").write_text((datadir / "corpus.json").read_text())
    return write_cuts(folder / "dev.jsonl.gz", cuts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"readable": 0}, "no clip could be read"), ({"text": "..."}, "the references hold no words")],
)
def test_no_value_where_no_reference_word_was_read(conf, datadir, tmp_path, capsys, changes, reason):
    manifest = dev_manifest(datadir, tmp_path, 3, **changes)
    train(str(conf), "base", str(tmp_path), str(datadir), [f"data.dev={manifest}", "train.eval_every=1"])
    printed = capsys.readouterr().out
    assert f"warning: {manifest}: no dev error rate, because {reason}" in printed and "dev 0.0 %" not in printed
    assert not any("dev_error" in row for row in metrics(tmp_path / "base"))
    states = [json.loads(path.read_text()) for path in tmp_path.glob("base/checkpoints/*/state.json")]
    assert states and all(state["dev_error"] is None for state in states)


@pytest.mark.slow
def test_unreadable_dev_clips_are_counted_once(conf, datadir, tmp_path, capsys):
    manifest = dev_manifest(datadir, tmp_path, 4, readable=3)
    changes = [f"data.dev={manifest}", "train.eval_every=1", "train.eval_clips=4"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    printed = capsys.readouterr().out
    assert printed.count(f"warning: {manifest}: 1 of 4 dev clips could not be read") == 1
    assert all("dev_error" in row for row in metrics(tmp_path / "base"))


def test_dev_set_is_not_read_if_it_is_never_measured(conf, datadir, tmp_path):
    changes = ["data.dev=absent.jsonl.gz", "train.eval_every=0", "train.steps=1"]
    train(str(conf), "base", str(tmp_path), str(datadir), changes)
    assert json.loads((tmp_path / "base" / "run.json").read_text())["inputs"]["dev"] is None


def test_example_is_the_reference_of_median_length_whatever_the_order(capsys):
    pairs = [("long heard", "x" * 300), ("y" * 300, "one two\nthree"), ("short", "one"), ("", "")]
    for order in (pairs, pairs[::-1]):
        show_example("dev 9.0 %", order)
        lines = [line.split("(arkasr) ")[1] for line in capsys.readouterr().out.splitlines()]
        assert lines == ["dev 9.0 %, reference:  one two three", f"dev 9.0 %, transcript: {'y' * 100} ..."]


def fixed_transcripts(monkeypatch, hypothesis) -> None:
    def transcribe(lm, batch, config):
        return [{"hypothesis": hypothesis(text)} for text in batch.texts]

    monkeypatch.setattr(dev_set, "transcribe", transcribe)


@pytest.mark.parametrize("is_collapsed", [True, False])
def test_collapse_of_a_model_is_logged(conf, datadir, tmp_path, monkeypatch, capsys, is_collapsed):
    cuts = [make_cut(tmp_path, f"dev-{i:02d}", 0.5, f"word{i} two") for i in range(30)]
    (tmp_path / "corpus.json").write_text((datadir / "corpus.json").read_text())
    manifest = write_cuts(tmp_path / "dev.jsonl.gz", cuts)
    trainer = make_trainer(
        conf, "base", tmp_path, datadir, f"data.dev={manifest}", "train.eval_clips=30", "train.ctc_weight=0"
    )
    fixed_transcripts(monkeypatch, lambda text: "the same two" if is_collapsed else text)
    rates, note = DevError(trainer.config, trainer.ranks, trainer.phases).measure(trainer.student)
    printed = capsys.readouterr().out
    assert rates == {"dev_error": 1.0 if is_collapsed else 0.0}  # of 2 words, 1 is replaced and 1 inserted
    expected = 'warning: collapse: 30 of 30 transcripts are "the same two" (distinct transcripts: 1) on the dev clips'
    assert (expected in printed) == ("(collapsed)" in note) == is_collapsed
    rate, hypothesis = ("100.0", "the same two") if is_collapsed else ("0.0", "word15 two")
    assert f"dev {rate} %, reference:  word15 two\n" in printed  # references of 9 and 10 characters, then by text
    assert f"dev {rate} %, transcript: {hypothesis}\n" in printed


def test_members_of_a_mix_are_scored_by_their_own_metric(conf, datadir, tmp_path, monkeypatch, capsys):
    facts = json.loads((datadir / "corpus.json").read_text())
    for name, metric, text, count in (("a", "wer", "one two", 30), ("b", "cer", "好的", 25), ("c", "wer", "...", 2)):
        (tmp_path / name).mkdir()
        texts = [f"{text} word{i}" if name == "a" else text for i in range(count)]
        cuts = [make_cut(tmp_path / name, f"dev-{i:02d}", 0.5, text) for i, text in enumerate(texts)]
        spoken = {"language": {"wer": "English", "cer": "Chinese"}[metric]}
        (tmp_path / name / "corpus.json").write_text(json.dumps(facts | spoken))
        write_cuts(tmp_path / name / "dev.jsonl.gz", cuts)
    path = tmp_path / "dev.mix.yaml"
    write_mix(path, [Member(f"{name}/dev.jsonl.gz", name) for name in "abc"])
    trainer = make_trainer(
        conf, "base", tmp_path, datadir, f"data.dev={path}", "train.eval_clips=66", "train.ctc_weight=0"
    )
    fixed_transcripts(monkeypatch, lambda text: "one two three" if "one" in text else "好")
    dev = DevError(trainer.config, trainer.ranks, trainer.phases)
    assert [(one.name, len(one.cuts)) for one in dev.sets] == [("a", 22), ("b", 22), ("c", 2)]
    rates, note = dev.measure(trainer.student)
    assert rates == pytest.approx({"dev_error": 5 / 12, "dev_error/a": 1 / 3, "dev_error/b": 1 / 2})
    assert note == ", dev 41.7 % (a 33.3 % (collapsed), b 50.0 %, c -)"
    printed = capsys.readouterr().out
    assert "warning: collapse: 22 of 22 transcripts are" in printed and "on the dev clips of a, so" in printed
    assert "dev b 50.0 %, reference:  好的\n" in printed and "dev b 50.0 %, transcript: 好\n" in printed
    assert f"warning: {tmp_path / 'c' / 'dev.jsonl.gz'}: no dev error rate, because the references hold no" in printed
