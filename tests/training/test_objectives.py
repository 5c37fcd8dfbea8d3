"""Training objectives compared with the Hugging Face models' own losses and torch's CTC on inputs built here."""

from __future__ import annotations

import math

import pytest
import torch
from corpus_fixture import clips, make_trainer
from tiny import ctc_tokens
from torch.nn.functional import ctc_loss

from arkasr.config.load import load_config
from arkasr.data.reasons import MISSING, Failure
from arkasr.distill.metrics import read_sums
from arkasr.errors import UserError
from arkasr.model.loading import load_speech_lm
from arkasr.training.objectives import DistillationObjective, MicroLoss, SupervisedObjective, make_objective
from arkasr.utils.timing import Phases


@pytest.fixture(params=["base", "teacher"])
def lm(request, trained):
    """One Ark-ASR and one Qwen3-ASR model."""
    return load_speech_lm(str(trained / request.param / "final"))


@pytest.fixture
def batch(datadir):
    return clips(datadir / "train.jsonl.gz", [0, 1, 2, 3])


def reference_loss(lm, batch) -> torch.Tensor:
    """Return the mean loss of the Hugging Face model for labels, with ids, features and masks built here."""
    features, mask = lm.features(batch.waveforms)
    rows = []
    for text, language, count in zip(batch.texts, batch.languages, lm.count_audio_tokens(mask.sum(-1).tolist())):
        before, after = (lm.tokenizer.encode(part, add_special_tokens=False) for part in lm.prompt_text(language))
        prompt = [*before, *[lm.hf.config.audio_token_id] * count, *after]
        answer = [*lm.tokenizer.encode(text, add_special_tokens=False), lm.stop_ids[0]]
        rows.append((prompt + answer, [-100] * len(prompt) + answer))
    longest = max(len(ids) for ids, _ in rows)
    pad = lm.tokenizer.pad_token_id
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    attention = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows])
    arguments = {"input_ids": ids, "attention_mask": attention, "labels": labels, "use_cache": False}
    return lm.hf(**arguments, input_features=features, input_features_mask=mask).loss


def test_cross_entropy_is_model_loss_times_number_of_tokens(lm, batch):
    micro = SupervisedObjective(0.0)(lm, batch, Phases())
    count = sum(len(lm.tokenizer.encode(text)) + 1 for text in batch.texts)
    assert micro.count == count and micro.sums == {
        "ce": float(micro.total.detach()),
        "ctc": 0.0,
        "ctc_unaligned": 0.0,
        "dropped": 0.0,
    }
    torch.testing.assert_close(micro.total, reference_loss(lm, batch) * count, rtol=1e-5, atol=1e-5)


def test_cross_entropy_gradient_is_model_gradient(lm, batch):
    expected = torch.autograd.grad(reference_loss(lm, batch), lm.head)[0]
    micro = SupervisedObjective(0.0)(lm, batch, Phases())
    gradient = torch.autograd.grad(micro.total / micro.count, lm.head)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_ctc_is_sum_of_torch_ctc_of_each_clip(lm, batch, capsys, own):
    torch.manual_seed(0)
    tokens = ctc_tokens(80) if own else lm.tokenizer
    lm.add_ctc_head(tokens if own else None)
    batch.texts[0] = "red red red red red red red red red red red"  # more tokens than frames
    objective = SupervisedObjective(0.25)
    micro = objective(lm, batch, Phases())
    assert f"of {len(batch.texts)} clips of this batch have more tokens than encoder frames" in capsys.readouterr().out
    objective(lm, batch, Phases())
    assert not capsys.readouterr().out  # said once, counted in each step
    expected, unaligned = torch.zeros(()), 0
    for waveform, text in zip(batch.waveforms, batch.texts):
        logprobs = lm.ctc_head(lm.encode_audio([waveform])[0]).log_softmax(-1)
        encoded = tokens.encode(text, add_special_tokens=False)
        ids, blank = torch.tensor(encoded.ids if own else encoded), len(tokens.get_vocab())
        assert logprobs.shape[1] == blank + 1
        sizes = torch.tensor(len(logprobs)), torch.tensor(len(ids))
        clip_loss = ctc_loss(logprobs, ids, *sizes, blank=blank, reduction="sum")
        expected = expected + torch.where(clip_loss.isinf(), 0.0, clip_loss)  # infinite with more tokens than frames
        unaligned += bool(clip_loss.isinf())
    assert unaligned >= 1 and micro.sums["ctc_unaligned"] == unaligned
    sums = read_sums(micro.sums)
    assert expected > 0 and sums["ctc"] == pytest.approx(expected.item(), rel=1e-4)
    assert micro.total.item() == pytest.approx(0.75 * sums["ce"] + 0.25 * sums["ctc"], rel=1e-5)


def test_supervised_loss_does_not_depend_on_batching(lm, batch):
    lm.add_ctc_head()
    objective = SupervisedObjective(0.5)
    together = objective(lm, batch, Phases())
    alone = [objective(lm, batch.select([i]), Phases()) for i in range(len(batch.ids))]
    assert together.count == sum(micro.count for micro in alone)
    torch.testing.assert_close(together.total, sum(micro.total for micro in alone), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bad", ["<|audio|>", "<|im_end|>", "<|user|>"])
def test_transcript_with_reserved_tokens_is_dropped_and_logged(trained, batch, capsys, bad):
    lm, objective = load_speech_lm(str(trained / "base" / "final")), SupervisedObjective(0.0)
    expected = objective(lm, batch.select([0, 2, 3]), Phases())
    batch.texts[1] = f"one {bad} two"
    micro = objective(lm, batch, Phases())
    assert (micro.count, micro.sums) == (expected.count, expected.sums | {"dropped": 1.0})
    assert f"dropped {batch.ids[1]}: its transcript contains reserved tokens" in capsys.readouterr().out


def test_batch_without_usable_transcript_has_zero_weight(trained, batch):
    lm, objective = load_speech_lm(str(trained / "base" / "final")), SupervisedObjective(0.0)
    batch.texts[:] = ["<|user|>"] * 4
    micro = objective(lm, batch, Phases())
    assert (micro.total.item(), micro.count, micro.sums) == (
        0.0,
        0.0,
        {"ce": 0.0, "ctc": 0.0, "ctc_unaligned": 0.0, "dropped": 4.0},
    )
    micro.total.backward()  # with sharding the other ranks wait for this pass
    assert lm.head.grad is not None and float(lm.head.grad.abs().max()) == 0.0


def test_empty_transcript_trains_the_stop_token(trained, batch):
    lm = load_speech_lm(str(trained / "base" / "final"))
    lm.add_ctc_head()
    batch.texts[:] = [""] * 4
    micro = SupervisedObjective(0.5)(lm, batch, Phases())
    sums = read_sums(micro.sums)
    assert micro.count == 4 and sums["ce"] > 0 and math.isfinite(sums["ctc"])


def test_unweighted_neutralises_sums_and_maxima():
    micro = MicroLoss(torch.tensor(3.0), 2.0, {"vuss": 9.0, "vuss_max": 5.0, "neg_vuss_min": -4.0}).unweighted()
    assert (float(micro.total), micro.count) == (0.0, 0.0)
    assert micro.sums == {"vuss": 0.0, "vuss_max": -math.inf, "neg_vuss_min": -math.inf}


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_batch_without_readable_clips_does_not_change_the_step(conf, trained, datadir, tmp_path, run):
    rows, weights = [], []
    for folder, extra in (("one", False), ("two", True)):
        changes = [f"teacher.options.path={trained}/teacher/final", f"model.path={trained}/base/final"]
        overrides = [*(changes if run == "base_opd" else []), f"train.accumulate={1 + extra}"]
        trainer = make_trainer(conf, run, tmp_path / folder, datadir, *overrides)
        good = clips(datadir / "train.jsonl.gz", [4, 5])
        bad = good.select([])
        bad.failures = [Failure(name, "gone.wav", MISSING) for name in "ab"]
        row = trainer.take_step(iter([bad, good] if extra else [good]))
        rows.append({name: value for name, value in row.items() if not name.startswith(("time/", "memory/"))})
        weights.append(trainer.student.head.detach().clone())
    assert rows[1].pop("failed_clips") == 2 and rows[0].pop("failed_clips") == 0
    assert rows[0] == rows[1] and rows[0]["clips"] == 2
    assert torch.equal(*weights)


def test_supervised_rates_are_per_token():
    sums = {"count": 4.0, "ce": 8.0, "ctc": 2.0, "ctc_unaligned": 3.0, "dropped": 1.0}
    counted = {"ctc_unaligned": 3.0, "dropped_clips": 1.0}
    assert SupervisedObjective(0.5).rates(sums) == {"ce": 2.0, "ctc": 0.5} | counted
    assert SupervisedObjective(0.0).rates(sums) == {"ce": 2.0, "dropped_clips": 1.0}  # no CTC loss was measured
    assert SupervisedObjective(0.5).rates(sums | {"count": 0.0}) == counted


def test_make_objective_refuses_ctc_with_distillation(conf, trained, datadir):
    config = load_config(conf, "base_opd", str(trained), str(datadir), ["train.ctc_weight=0.5"])
    with pytest.raises(
        UserError, match="`train.ctc_weight` must be 0 with `objective: opd`, got 0.5: CTC needs reference transcripts"
    ):
        make_objective(config, load_speech_lm(str(trained / "base" / "final")))


def test_distillation_gradient_reaches_the_student_and_not_the_teacher(conf, trained, datadir, batch):
    config = load_config(conf, "base_opd", str(trained), str(datadir))
    student = load_speech_lm(str(trained / "base" / "final"))
    objective = make_objective(config, student)
    micro = objective(student, batch, Phases())
    micro.total.backward()
    assert micro.count > 0 and float(student.head.grad.abs().sum()) > 0
    teacher = objective.opd.teacher.lm
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert micro.sums["clips"] == 4 and micro.sums["positions"] == micro.count
    logged = objective.rates(read_sums(micro.sums))
    assert 2 <= logged["vuss_min"] <= logged["vuss"] <= logged["vuss_max"] <= 8 and 0 < logged["coverage"] <= 1


def test_lost_teacher_probability_is_reported_once(monkeypatch, capsys):
    monkeypatch.setattr("arkasr.training.objectives.rates", lambda sums: sums)
    objective = DistillationObjective(None)
    for lost, expected in ((0.04, ""), (0.26, "warning: tokens: 26 % of the teacher's probability"), (0.3, "")):
        assert objective.rates({"dropped_mass": lost}) == {"dropped_mass": lost}
        out = capsys.readouterr().out
        assert expected in out and bool(out) == bool(expected)
    assert objective.rates({}) == {}  # without a teacher distribution
