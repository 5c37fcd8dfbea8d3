"""Frozen parts keep their weights and get no gradient, and each step runs the encoder once, frozen or not."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer
from steps import SIZES, frozen_teacher, opd, trainable
from tiny import batch, student, waveform

from arkasr.config.load import load_config
from arkasr.config.schema import RolloutConfig
from arkasr.errors import UserError
from arkasr.model.build import freeze
from arkasr.utils.timing import Phases

PREFIXES = {
    "encoder": ("hf.model.audio_tower.",),
    "adapter": ("hf.model.multi_modal_projector.",),
    "decoder": ("hf.model.language_model.", "hf.lm_head."),
}


def prefixes_of(parts):
    return tuple(prefix for part in parts for prefix in PREFIXES[part])


@pytest.mark.parametrize("parts", [[], ["encoder"], ["adapter"], ["decoder"], ["encoder", "decoder"]])
def test_freeze_freezes_only_the_named_parts(parts):
    lm = student(1).requires_grad_(True)
    freeze(lm, parts)
    for name, weight in lm.named_parameters():
        assert weight.requires_grad != name.startswith(prefixes_of(parts) or ("none",)), name


def run_step(parts, share=True, **rollout):
    """Return the loss of one step, its scored positions, its gradients, and the runs of the encoder."""
    lm, runs = trainable().requires_grad_(True), []
    freeze(lm, parts)
    lm.hf.model.audio_tower.conv1.register_forward_hook(lambda *_: runs.append(1))
    one = opd(lm, its_teacher=frozen_teacher())
    one.rollout = RolloutConfig(max_new_tokens=9, **rollout)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scored = one.collect(lm, batch(SIZES), Phases())
    if not share:
        scored.rollout.audio = lm.encode_audio([waveform(n, seed) for seed, n in enumerate(SIZES)])
    total, count = one.rescore(lm, scored)
    total.backward()
    return float(total.detach()), int(count), {n: p.grad for n, p in lm.named_parameters() if p.grad is not None}, runs


@pytest.mark.parametrize("parts", [[], ["encoder"], ["encoder", "adapter"], ["encoder", "decoder"]])
@pytest.mark.parametrize("rollout", [{}, {"empty": "skip", "samples": 2, "temperature": 1.0}])
def test_opd_step_runs_the_encoder_once(parts, rollout):
    total, count, gradients, runs = run_step(parts, **rollout)
    expected, same_count, others, more_runs = run_step(parts, share=False, **rollout)
    assert (len(runs), len(more_runs)) == (1, 2)
    assert total == pytest.approx(expected, rel=1e-5) and count == same_count > 10
    assert gradients.keys() == others.keys() and not any(
        name.startswith(prefixes_of(parts) or ("none",)) for name in gradients
    )
    torch.testing.assert_close(gradients, others, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("run", ["base", "base_opd"])
def test_training_step_and_resume_keep_frozen_parts(conf, trained, datadir, tmp_path, run):
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    overrides = overrides if run == "base_opd" else []
    trainer = make_trainer(conf, run, tmp_path, datadir, "model.freeze=[encoder, adapter]", *overrides)
    before = {name: weight.detach().clone() for name, weight in trainer.student.named_parameters()}
    in_optimizer = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [0, 1])]))
    trainer.save()
    trainer.checkpoints.wait()
    again = make_trainer(conf, run, tmp_path, datadir, "model.freeze=[encoder, adapter]", "seed=5", *overrides)
    again.resume()
    for (name, weight), resumed in zip(trainer.student.named_parameters(), again.student.parameters(), strict=True):
        frozen = name.startswith(prefixes_of(["encoder", "adapter"]))
        assert torch.equal(weight, before[name]) == frozen and (id(weight) in in_optimizer) != frozen, name
        assert torch.equal(resumed, weight)


@pytest.mark.parametrize("parts", ["[ears]", "[encoder, adapter, decoder]"])
def test_load_config_refuses_parts_that_cannot_be_frozen(conf, parts):
    with pytest.raises(UserError, match="freeze must be a list of some, but not all, of encoder, adapter, decoder"):
        load_config(str(conf), "base", "exp", "data", [f"model.freeze={parts}"])
