"""The shape of the device mesh, the blocks of each model, and activation checkpointing, which changes no result."""

from __future__ import annotations

import pytest
import torch
from corpus_fixture import clips, make_trainer
from tiny import batch, student, teacher, waveform
from tiny_teachers import glm, save_whisper
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.fsdp import FSDPModule

from arkasr.config.load import load_config
from arkasr.distributions.views import HeadView
from arkasr.errors import UserError
from arkasr.model.build import freeze
from arkasr.model.generation import generate
from arkasr.model.loading import load_speech_lm
from arkasr.model.sharding import blocks, checkpoint_blocks, gathered, mesh_shape
from arkasr.training.final_model import save_final
from arkasr.training.ranks import Ranks

RECOMPUTED = "fsdp.activation_checkpointing=blocks"


@pytest.mark.parametrize(
    ("ranks", "replicate", "node", "shape"),
    [
        (4, 1, 4, (4,)),
        (4, 2, 4, (2, 2)),
        (4, 4, 1, (4, 1)),
        (24, 0, 8, (3, 8)),
        (24, 3, 8, (3, 8)),
        (8, 0, 8, (8,)),
        (3, 0, 1, (3, 1)),
    ],
)
def test_mesh_shape_groups_ranks(ranks, replicate, node, shape):
    assert mesh_shape(ranks, replicate, node) == shape


@pytest.mark.parametrize(("ranks", "replicate", "node"), [(4, 3, 4), (4, 8, 4), (6, 0, 4), (2, 0, 8)])
def test_mesh_shape_refuses_unequal_groups(ranks, replicate, node):
    with pytest.raises(
        UserError, match=f"fsdp.replicate={replicate}: {ranks} ranks cannot be split into .* use a divisor"
    ):
        mesh_shape(ranks, replicate, node)


def test_ranks_refuse_unequal_groups_before_they_start(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="fsdp.replicate=3: 4 ranks cannot be split into 3 equal groups"):
        Ranks(replicate=3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("replicate=-1", "replicate must be at least 0, got -1"),
        ("activation_checkpointing=all", "activation_checkpointing must be one of 'none', 'blocks', got 'all'"),
        ("teacher=split", "teacher must be one of 'replicate', 'shard', got 'split'"),
    ],
)
def test_load_config_checks_fsdp_settings(conf, setting, message):
    with pytest.raises(UserError, match=f"fsdp.*{message}"):
        load_config(str(conf), "base", "exp", "data", [f"fsdp.{setting}"])


KINDS = {
    "arkasr": (student, {"GlmAsrEncoderLayer": 2, "Qwen2DecoderLayer": 2}),
    "qwen3_asr": (teacher, {"Qwen3ASRAudioEncoderLayer": 2, "Qwen3DecoderLayer": 2}),
    "glmasr": (glm, {"GlmAsrEncoderLayer": 2, "LlamaDecoderLayer": 2}),
}


@pytest.mark.parametrize("name", KINDS)
def test_blocks_are_the_layers_declared_by_the_models(name):
    make, expected = KINDS[name]
    found = [type(module).__name__ for module in blocks(make())]
    assert {kind: found.count(kind) for kind in found} == expected


def losses_and_gradients(lm, clip_sizes=(16000, 9000)):
    """Return a loss with both gradients of the head, its gradients by name, and how often each block ran."""
    lm.requires_grad_(True).train()
    inner, runs = [m for m in lm.modules() if type(m).__name__.endswith("Layer")], []
    for module in inner:
        module.register_forward_pre_hook(lambda *_: runs.append(1))
    clips = batch(list(clip_sizes))
    ids = [lm.text_ids("one two three four five six seven eight nine ten " * 3) for _ in clips.ids]
    prompts = lm.embed_prompts(lm.encode_audio(clips.waveforms), clips.languages)
    states = lm.transcript_states(prompts, ids)
    some = torch.arange(12).expand(len(states), -1)
    view = HeadView(states, lm.head, lm.blocked)
    (entropy,) = view.in_parts(lambda part: (part.entropy(),))
    assert len(states) > 64  # more than one part of the head
    scores = view.scores_at(some)
    loss = scores.masked_fill(scores.isinf(), 0.0).square().mean() + entropy.mean()
    before = len(runs)
    loss.backward()
    gradients = {n.replace("_checkpoint_wrapped_module.", ""): p.grad for n, p in lm.named_parameters()}
    return loss.item(), {n: g for n, g in gradients.items() if g is not None}, (before, len(runs) - before)


@pytest.mark.parametrize("name", KINDS)
def test_checkpoint_blocks_gives_the_same_gradients_bit_for_bit(name):
    make, expected = KINDS[name]
    number = sum(expected.values())
    loss, gradients, runs = losses_and_gradients(make(3))
    same, others, more_runs = losses_and_gradients(checkpoint_blocks(make(3)))
    assert runs == (number, 0) and more_runs == (number, number)
    assert loss == same and gradients.keys() == others.keys() and len(gradients) > 20
    assert all(torch.equal(others[n], gradient) for n, gradient in gradients.items())


def test_checkpoint_blocks_saves_memory_for_backward():
    """Count the bytes that autograd keeps: the inputs of a block remain, its intermediate results do not."""

    def kept(lm):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        lm.requires_grad_(True).train()
        weights = {p.untyped_storage().data_ptr() for p in lm.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            audio = lm.encode_audio([waveform(48000)])
        assert len(audio) == 1
        return sum(size for place, size in sizes.items() if place not in weights)

    assert kept(checkpoint_blocks(student(1))) < 0.6 * kept(student(1))


def test_checkpoint_blocks_does_not_change_generate(own_warnings):
    plain, wrapped = student(4), checkpoint_blocks(student(4)).train()
    clip = [waveform(16000)]
    ids = [generate(lm, lm.embed_prompts(lm.encode_audio(clip), ["English"]), [8], 4).ids for lm in (plain, wrapped)]
    assert ids[0] == ids[1] and own_warnings.found == []


def test_checkpoint_blocks_works_with_frozen_parts():
    def gradients(lm):
        freeze(lm.requires_grad_(True), ["encoder"])
        prompts = lm.embed_prompts(lm.encode_audio([waveform(16000)]), ["English"])
        lm.transcript_states(prompts, [lm.text_ids("the sea")]).square().sum().backward()
        return [p.grad for p in lm.parameters() if p.grad is not None]

    wrapped, plain = gradients(checkpoint_blocks(student(2))), gradients(student(2))
    assert len(wrapped) == len(plain) > 10 and all(torch.equal(a, b) for a, b in zip(wrapped, plain))


def test_checkpoint_blocks_does_not_change_saved_names(conf, datadir, tmp_path):
    trainer = make_trainer(conf, "base", tmp_path, datadir, RECOMPUTED)
    for _ in range(2):
        trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [0, 1])]))
    trainer.save()
    trainer.checkpoints.wait()
    again = make_trainer(conf, "base", tmp_path, datadir, "seed=5")
    again.resume()
    (model, optimizer), (same, resumed) = (get_state_dict(t.student, t.optimizer) for t in (trainer, again))
    torch.testing.assert_close(model, same, rtol=0, atol=0)
    assert optimizer["param_groups"] == resumed["param_groups"]
    assert len(optimizer["state"]) == len(list(trainer.student.parameters()))
    torch.testing.assert_close(optimizer["state"], resumed["state"], rtol=0, atol=0)
    save_final(tmp_path / "final", trainer.student, trainer.ranks)
    loaded, weights = load_speech_lm(str(tmp_path / "final")), trainer.student.hf.state_dict()
    assert loaded.hf.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.hf.state_dict().items())


def test_gathered_does_nothing_without_sharding():
    lm = student()
    with gathered(lm), gathered(None):
        assert not isinstance(lm, FSDPModule)


def test_trainer_refuses_to_shard_a_teacher_that_is_not_a_speech_lm(conf, trained, datadir, tmp_path):
    save_whisper(tmp_path / "whisper")
    overrides = [f"model.path={trained}/base/final", "teacher.name=whisper", f"teacher.options.path={tmp_path}/whisper"]
    make_trainer(conf, "base_opd", tmp_path, datadir, *overrides, "teacher.options.dtype=float32")
    with pytest.raises(UserError, match="`fsdp.teacher` must be `replicate` with teacher 'whisper'"):
        make_trainer(conf, "base_opd", tmp_path, datadir, *overrides, "fsdp.teacher=shard")


def test_single_process_does_not_shard_the_teacher(conf, trained, datadir, tmp_path):
    overrides = [f"model.path={trained}/base/final", f"teacher.options.path={trained}/teacher/final"]
    trainer = make_trainer(conf, "base_opd", tmp_path, datadir, *overrides, "fsdp.teacher=shard", "fsdp.replicate=3")
    row = trainer.take_step(iter([clips(datadir / "train.jsonl.gz", [0, 1])]))
    assert row["loss"] > 0 and not isinstance(trainer.objective.opd.teacher.lm, FSDPModule)
