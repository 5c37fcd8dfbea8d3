"""The CTC head of runs: kept in checkpoints and in `final`, continued by the next run, with a dev error of its own."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer, metrics, write_dev
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from arkasr.model.ctc_head import FILE
from arkasr.training.dev_error import DevError
from arkasr.training.train import train


def head_of(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / FILE)


def test_final_model_has_the_head_of_the_last_checkpoint_and_its_digest(trained, tmp_path):
    run = trained / "base"
    dcp_to_torch_save(run / "checkpoints" / "step-00000080" / "weights", tmp_path / "whole.pt")
    expected = torch.load(tmp_path / "whole.pt")["model"]
    found = head_of(run)
    assert all(torch.equal(value, expected[f"ctc_head.{name}"]) for name, value in found.items())
    assert FILE in (run / "final" / "SHA256SUMS").read_text()


def test_next_run_continues_with_the_head(conf, trained, datadir, tmp_path, capsys):
    path = f"model.path={trained}/base/final"
    found = make_trainer(conf, "base", tmp_path / "kept", datadir, path).student.ctc_head.state_dict()
    assert f"the CTC head continues from {trained}/base/final/{FILE}" in capsys.readouterr().out
    assert all(torch.equal(found[name], value) for name, value in head_of(trained / "base").items())
    none = make_trainer(conf, "base", tmp_path / "none", datadir, path, "train.ctc_weight=0")
    assert none.student.ctc_head is None


@pytest.mark.slow
def test_run_begins_from_an_encoder_trained_by_ctc_alone(conf, datadir, tmp_path, monkeypatch):
    """The decoder is as it was drawn, and encoder, adapter and head are those of the first run."""
    alone = ["train.ctc_weight=1", "optim.weight_decay=5", "train.save_every=3"]
    monkeypatch.setattr("arkasr.evaluation.dev_set.transcribe", None)  # the decoder is not used
    train(str(conf), "base", str(tmp_path / "ctc"), str(datadir), alone)
    start = make_trainer(conf, "base", tmp_path / "start", datadir, *alone).student.hf.state_dict()
    final = load_file(tmp_path / "ctc" / "base" / "final" / "model.safetensors")
    changed = {name for name, value in final.items() if not torch.equal(value, start[name])}
    assert any("audio_tower" in name for name in changed) and any("projector" in name for name in changed)
    assert not any("language_model" in name for name in changed)
    rows = metrics(tmp_path / "ctc" / "base")
    assert all("ce" not in row and row["loss"] == row["ctc"] for row in rows)
    assert [row["dev_error"] == row["dev_error_ctc"] for row in rows if "dev_error" in row] == [True, True]
    trainer = make_trainer(conf, "base", tmp_path / "next", datadir, f"model.path={tmp_path}/ctc/base/final")
    assert all(torch.equal(trainer.student.hf.state_dict()[name], value) for name, value in final.items())
    assert torch.equal(trainer.student.ctc_head.weight, head_of(tmp_path / "ctc" / "base")["weight"])


def reference_ctc_texts(lm, batch) -> list[str]:
    """Transcribe clip by clip: the best class of each frame, unless it is the blank or that of the frame before."""
    texts = []
    for waveform in batch.waveforms:
        with torch.no_grad():
            best = lm.ctc_head(lm.encode_audio([waveform])[0]).argmax(-1).tolist()
        kept = [best[i] for i in range(len(best)) if best[i] != len(lm.blocked) and (i == 0 or best[i] != best[i - 1])]
        texts.append(lm.text(kept))
    return texts


def test_dev_error_of_the_head_is_that_of_its_greedy_transcripts(conf, trained, datadir, tmp_path):
    changes = [f"model.path={trained}/base/final", "train.eval_clips=4", f"data.dev={tmp_path}/dev.jsonl.gz"]
    trainer = make_trainer(conf, "base", tmp_path, datadir, *changes)
    trainer.student.ctc_head.bias.data[-1] -= 5  # the head of this short training gives blanks only
    texts = reference_ctc_texts(trainer.student.eval(), clips(datadir / "dev.jsonl.gz"))
    expected = write_dev(tmp_path, datadir, texts)
    rates, note = DevError(trainer.config, trainer.ranks, trainer.phases).measure(trainer.student)
    assert rates["dev_error_ctc"] == pytest.approx(expected) and f"CTC {100 * expected:.1f} %" in note
    assert expected < 0.6 and rates["dev_error"] != rates["dev_error_ctc"]


def test_dev_error_of_the_head_is_logged(trained):
    rows = [row for row in metrics(trained / "base") if "dev_error" in row]
    assert rows and all(row["dev_error_ctc"] >= 0 for row in rows)
