"""LoRA adapters: layers that get them, what is trained, and merging, compared with the unmerged forward pass."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from adapters import adapted, lora_settings
from decoding import SIZES, prompts_of, same
from tiny import eager_to_stop, student, teacher, waveform
from torch.distributed.device_mesh import init_device_mesh

from arkasr.config.load import load_config
from arkasr.config.schema import LoraConfig, ModelConfig
from arkasr.errors import UserError
from arkasr.model import lora
from arkasr.model.generation import generate, weights
from arkasr.model.lora import adapted_layers, merge_adapters
from arkasr.model.sharding import checkpoint_blocks, gathered, shard

CAPS = [14, 3, 9, 17, 1, 12]
DECODER = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
ENCODER = {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}


def states_of(lm):
    """Return the states of two transcripts, with a gradient."""
    prompts = lm.embed_prompts(lm.encode_audio([waveform(9000), waveform(5000)]), ["English"] * 2)
    return lm.transcript_states(prompts, [[3, 4, 5], [6, 7]])


def suffixes(names, tower):
    return {name.rpartition(".")[2] for name in names if f".{tower}." in name}


def test_adapted_layers_are_the_linear_layers_of_the_blocks():
    for settings, encoder in ((lora_settings(), set()), (lora_settings(encoder=True), ENCODER)):
        found = adapted_layers(student().hf, settings)
        assert suffixes(found, "language_model") == DECODER and suffixes(found, "audio_tower") == encoder
    assert len(found) == 2 * len(DECODER) + 2 * len(ENCODER)  # two blocks each, no head and no projector
    assert adapted_layers(student().hf, ModelConfig()) == {}
    only = adapted_layers(student().hf, lora_settings(encoder=True, freeze=["decoder"]))
    assert suffixes(only, "language_model") == set() and len(only) == 2 * len(ENCODER)


def test_adapted_layers_follow_the_targets():
    found = adapted_layers(student().hf, lora_settings(targets=["q_proj", "mlp.up_proj"], encoder=True))
    assert suffixes(found, "language_model") == {"q_proj", "up_proj"} and suffixes(found, "audio_tower") == {"q_proj"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ["q_prj"]}, "'q_prj': no linear layer of the blocks has this name; did you mean q_proj?"),
        ({"targets": ["lm_head"]}, "'lm_head': no linear layer of the blocks has this name; use names of down_proj, "),
        ({"targets": ["fc1"]}, "'fc1': only the encoder has such a layer, .*; set model.lora.encoder=true or"),
        ({"targets": ["up_proj"], "encoder": True, "freeze": ["decoder"]}, "only the decoder .* from model.freeze or"),
    ],
)
def test_unknown_targets_name_the_nearest_layers(settings, message):
    with pytest.raises(UserError, match=message):
        adapted_layers(student().hf, lora_settings(**settings))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.lora.rank=4"], "model.lora.rank must be 0 without pretrained weights"),
        (["model.path=x", "model.lora.rank=4", "model.freeze=[decoder]"], "model.freeze must be without `decoder`"),
        (["model.path=x", "model.lora.rank=-1"], "model.lora.rank must be from 0 to 1024"),
        (["model.path=x", "model.lora.dropout=1"], "model.lora.dropout must be at least 0 and below 1"),
        (["model.path=x", "model.lora.target=[q_proj]"], "did you mean model.lora.targets"),
    ],
)
def test_load_config_refuses_settings_without_a_meaning(conf, words, message):
    with pytest.raises(UserError, match=message):
        load_config(str(conf), "base", "exp", "data", words)


def test_without_peft_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`model.lora.rank`: LoRA needs .*pip install 'arkasr\[lora\]'"):
        lora.train_parts(student(), lora_settings())


@pytest.mark.parametrize("settings", [{}, {"encoder": True}, {"freeze": ["adapter"]}, {"targets": ["v_proj"]}])
def test_only_adapters_and_projector_are_trained(settings):
    lm, settings = adapted(**settings), lora_settings(**settings)
    states_of(lm).square().sum().backward()
    with_gradient = {name for name, weight in lm.hf.named_parameters() if weight.grad is not None}
    assert all(".lora_" in name or "multi_modal_projector" in name for name in with_gradient)
    trained = {name for name, weight in lm.hf.named_parameters() if weight.requires_grad}
    assert with_gradient == trained
    assert any("multi_modal_projector" in name for name in trained) == ("adapter" not in settings.freeze)


def test_trained_weights_are_float32_and_merged_ones_as_before():
    lm = student(10)
    for weight in lm.parameters():
        weight.data = weight.data.bfloat16()
    adapted(lm)
    assert {w.dtype for w in lm.parameters() if w.requires_grad} == {torch.float32}
    assert {w.dtype for w in lm.parameters() if not w.requires_grad} == {torch.bfloat16}
    assert {w.dtype for w in merge_adapters(lm).parameters()} == {torch.bfloat16}


@torch.no_grad()
def test_merged_model_computes_what_the_adapters_do():
    lm = adapted(encoder=True)
    merged = merge_adapters(deepcopy(lm))
    assert merged.hf.state_dict().keys() == student().hf.state_dict().keys()
    states = [states_of(each) for each in (lm, merged, student(10))]
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-4)
    assert (states[0] - states[2]).abs().max() > 0.1


# Rollouts


@pytest.mark.parametrize("make", [student, teacher], ids=["qwen2", "qwen3"])
def test_rollouts_are_those_of_the_merged_model(make):
    lm = adapted(eager_to_stop(make(10), 2.0))
    merged = merge_adapters(deepcopy(lm))
    prompts = prompts_of(merged)
    found = generate(lm, prompts, CAPS, 4)
    assert same(found, generate(merged, prompts, CAPS, 4)) and len({tuple(ids) for ids in found.ids}) > 3
    assert found.ids != generate(eager_to_stop(make(10), 2.0), prompts, CAPS, 4).ids


def test_adapters_are_merged_once_per_rollout(monkeypatch):
    lm, merges = adapted(), []
    layers = [m for m in lm.modules() if hasattr(m, "lora_A")]
    prompts = prompts_of(lm)
    for layer in layers:
        layer.get_delta_weight = lambda name, of=layer: merges.append(1) or type(of).get_delta_weight(of, name)
    generate(lm, prompts, CAPS, 4)
    assert len(merges) == len(layers)
    before = weights.current_weights(lm).decoder.layers[0].mlp.up_proj.weight.clone()
    with torch.no_grad():
        lm.hf.model.language_model.layers[0].mlp.up_proj.lora_B["default"].weight.mul_(2.0)
    assert not torch.equal(weights.current_weights(lm).decoder.layers[0].mlp.up_proj.weight, before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sharded_model_with_recomputation_generates_as_the_merged_one(dtype):
    lm = adapted(eager_to_stop(student(10), 2.0))
    merged = merge_adapters(deepcopy(lm))
    for weight in merged.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))
    prompts = prompts_of(merged)
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = shard(checkpoint_blocks(lm), init_device_mesh("cpu", (1,), mesh_dim_names=("shard",)), dtype)
        with gathered(sharded):
            found = sharded(lambda lm: generate(lm, prompts, CAPS, 4))
    finally:
        dist.destroy_process_group()
    expected = generate(merged, prompts, CAPS, 4)
    if dtype == "float32":
        assert same(found, expected)
    equal = sum(a == b for one, other in zip(found.ids, expected.ids) for a, b in zip(one, other))
    assert equal > 0.5 * sum(map(len, expected.ids)) and len(found.ids) == len(SIZES)  # bfloat16 rounds W and B A apart


def test_lora_config_is_part_of_the_schema():
    assert ModelConfig().adapted == () and ModelConfig(freeze=["adapter"]).frozen == ("adapter",)
    assert lora_settings().adapted == ("decoder",) and lora_settings().frozen == ("encoder", "decoder")
    assert lora_settings(encoder=True).adapted == ("encoder", "decoder") and LoraConfig().rank == 0
