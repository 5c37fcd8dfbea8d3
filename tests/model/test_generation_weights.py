"""The copy of decoder and head with which sharded models, and models under autocast, generate."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
import torch.distributed as dist
from decoding import prompts_of, same
from tiny import eager_to_stop, student, teacher
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.utils import parametrize

from arkasr.model.generation import generate, weights
from arkasr.model.generation.merging import UnmergeableError, merged_value, require_mergeable
from arkasr.model.sharding import checkpoint_blocks, gathered, shard

CAPS = [14, 3, 9, 17, 1, 12]
MODELS = {"qwen2": lambda: student(24), "qwen3": lambda: teacher(10)}


@pytest.fixture(params=MODELS)
def lm(request):
    return eager_to_stop(MODELS[request.param](), 2.0)


@pytest.fixture(scope="module")
def mesh():
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("shard",))
    dist.destroy_process_group()


def in_bfloat16(lm):
    """Return the same model with weights in bfloat16, but float32 rotary frequencies."""
    other = deepcopy(lm)
    for parameter in other.parameters():
        parameter.data = parameter.data.bfloat16()
    return other


def test_a_whole_model_in_its_own_dtype_is_not_copied(lm):
    current = weights.current_weights(lm)
    assert current.decoder is lm.hf.model.language_model and not current.is_copy
    assert current.head.data_ptr() == lm.head.data_ptr()


def test_autocast_generates_with_a_copy_in_its_dtype(lm):
    expected = in_bfloat16(lm)
    prompts = [p.bfloat16() for p in prompts_of(expected)]
    with torch.autocast("cpu", torch.bfloat16):
        current = weights.current_weights(lm)
        assert current.is_copy and {p.dtype for p in current.decoder.parameters()} == {torch.bfloat16}
        found = generate(lm, prompts, CAPS, 4)
    assert same(found, generate(expected, prompts, CAPS, 4)) and any(found.stopped)
    tied = current.decoder.get_input_embeddings().weight.data_ptr() == current.head.data_ptr()
    assert tied == (lm.hf.lm_head.weight is lm.hf.get_input_embeddings().weight)


def test_the_copy_follows_the_weights_and_keeps_its_addresses(lm):
    with torch.autocast("cpu", torch.bfloat16):
        before = weights.current_weights(lm).addresses()
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(1.5)
        current = weights.current_weights(lm)
    assert current.addresses() == before
    for name, value in current.decoder.named_parameters():
        assert torch.equal(value, lm.hf.model.language_model.get_parameter(name).bfloat16())
    assert torch.equal(current.head, lm.head.bfloat16())


def test_an_untied_head_is_copied(lm):
    lm.hf.lm_head.weight = nn.Parameter(lm.head.detach().clone() + 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(weights.current_weights(lm).head, lm.head.bfloat16())


def test_the_copy_goes_with_its_model():
    lm = student(24)
    with torch.autocast("cpu", torch.bfloat16):
        weights.current_weights(lm)
    number = len(weights._copies)
    del lm
    gc.collect()
    assert len(weights._copies) == number - 1


# Sharded models


@pytest.mark.parametrize("recomputed", [False, True])
def test_a_sharded_model_generates_without_its_hooks(lm, mesh, recomputed, monkeypatch):
    plain = in_bfloat16(lm)
    prompts = [p.bfloat16() for p in prompts_of(plain)]
    expected = generate(plain, prompts, CAPS, 4)
    calls = count_gathers(monkeypatch)
    sharded = shard(checkpoint_blocks(lm) if recomputed else lm, mesh, "bfloat16")
    with gathered(sharded):
        before = len(calls)
        found = sharded(lambda lm: generate(lm, prompts, CAPS, 4))
        assert len(calls) == before
    assert same(found, expected)
    with torch.no_grad():
        for parameter in sharded.parameters():
            parameter.mul_(1.25)
        for parameter in plain.parameters():
            parameter.copy_(parameter * 1.25)
    with gathered(sharded):
        again = sharded(lambda lm: weights.current_weights(lm))
    assert again.is_copy and again.dtype == torch.bfloat16
    name = "layers.1.self_attn.q_proj.weight"
    whole = sharded.hf.model.language_model.get_parameter(wrapped(name) if recomputed else name).full_tensor()
    assert torch.equal(again.decoder.get_parameter(name), whole.bfloat16())


def wrapped(name):
    return name.replace("layers.1.", "layers.1._checkpoint_wrapped_module.")


def count_gathers(monkeypatch):
    calls, gather = [], dist.all_gather_into_tensor
    monkeypatch.setattr(
        dist, "all_gather_into_tensor", lambda *of, **options: calls.append(1) or gather(*of, **options)
    )
    return calls


def test_a_sharded_model_generates_outside_of_gathered_too(mesh):
    lm = eager_to_stop(student(24), 2.0)
    prompts = prompts_of(lm)
    expected = generate(lm, prompts, CAPS, 4)
    assert same(shard(lm, mesh)(lambda lm: generate(lm, prompts, CAPS, 4)), expected)


# Adapters


class Scaled(nn.Module):
    def forward(self, weight):
        return 1.5 * weight


class LoraLinear(nn.Module):
    """A linear layer with adapters, with the attributes of PEFT's layers."""

    def __init__(self, base_layer, names):
        super().__init__()
        self.base_layer, self.merged, self.disable_adapters, self.active_adapters = base_layer, False, False, names
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: nn.Parameter(0.3 * torch.randn(shape, generator=generator))  # noqa: E731
        self.lora_A = nn.ParameterDict({name: draw(2, base_layer.in_features) for name in names})
        self.lora_B = nn.ParameterDict({name: draw(base_layer.out_features, 2) for name in names})

    def get_delta_weight(self, name):
        return self.lora_B[name] @ self.lora_A[name]

    def forward(self, x):
        deltas = [] if self.disable_adapters else self.active_adapters
        return self.base_layer(x) + sum(x @ self.get_delta_weight(name).T for name in deltas)


@contextmanager
def copied():
    """Ask for a copy: autocast to a dtype other than that of the weights."""
    with torch.autocast("cpu", torch.bfloat16):
        yield


def test_adapters_are_merged(lm):
    attention = lm.hf.model.language_model.layers[1].self_attn
    base = attention.q_proj.weight.detach().clone()
    attention.q_proj = LoraLinear(attention.q_proj, ["first", "second"])
    name = "layers.1.self_attn.q_proj.weight"
    delta = sum(attention.q_proj.get_delta_weight(n) for n in ("first", "second")).detach()
    with copied():
        assert torch.equal(weights.current_weights(lm).decoder.get_parameter(name), (base + delta).bfloat16())
    attention.q_proj.active_adapters = ["second"]
    found = merged_value(lm.hf.model.language_model, name)
    torch.testing.assert_close(found, base + attention.q_proj.get_delta_weight("second"))
    attention.q_proj.disable_adapters = True
    assert torch.equal(merged_value(lm.hf.model.language_model, name), base)


def test_a_model_with_adapters_generates_what_its_merged_copy_does(lm):
    """In float32, where both must agree: the copy is made of a sharded model."""
    attention = lm.hf.model.language_model.layers[0].self_attn
    attention.v_proj = LoraLinear(attention.v_proj, ["first"])
    prompts = prompts_of(lm)
    expected = generate(lm, prompts, CAPS, 4)
    copy = weights._refreshed(lm, torch.float32)
    merged = deepcopy(lm)
    merged.hf.model.language_model = copy.decoder
    assert same(generate(merged, prompts, CAPS, 4), expected)
    before = deepcopy(lm)
    before.hf.model.language_model.layers[0].self_attn.v_proj.disable_adapters = True
    assert generate(before, prompts, CAPS, 4).ids != expected.ids


def test_parametrizations_are_merged(lm):
    projection = lm.hf.model.language_model.layers[0].mlp.up_proj
    base = projection.weight.detach().clone()
    parametrize.register_parametrization(projection, "weight", Scaled())
    with copied():
        found = weights.current_weights(lm).decoder.get_parameter("layers.0.mlp.up_proj.weight")
    assert torch.equal(found, (1.5 * base).bfloat16())


class Gated(nn.Linear):
    def __init__(self, base):
        super().__init__(base.in_features, base.out_features, base.bias is not None)
        self.load_state_dict(base.state_dict())
        self.gate = nn.Parameter(torch.full((base.out_features,), 0.5))

    def forward(self, x):
        return self.gate * super().forward(x)


def test_unknown_adapters_generate_without_a_copy_and_with_one_warning(lm, capsys):
    mlp, names = lm.hf.model.language_model.layers[0].mlp, dict(lm.hf.model.language_model.named_parameters())
    mlp.up_proj = Gated(mlp.up_proj)
    with pytest.raises(UnmergeableError, match=r"layers\.0\.mlp\.up_proj\.gate"):
        require_mergeable(lm.hf.model.language_model, names)
    prompts = prompts_of(lm)
    with torch.autocast("cpu", torch.bfloat16):
        current = weights.current_weights(lm)
        first, second = (generate(lm, prompts, CAPS, 4) for _ in range(2))
    assert not current.is_copy and not current.is_fixed and current.decoder is lm.hf.model.language_model
    assert same(first, second)
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("every generated token gathers or casts") == 1


def test_an_adapter_that_is_not_a_sum_is_not_merged(lm):
    attention = lm.hf.model.language_model.layers[0].self_attn
    attention.q_proj = LoraLinear(attention.q_proj, ["first"])
    attention.q_proj.lora_variant = {"first": "dora"}
    with pytest.raises(UnmergeableError, match=r"layers\.0\.self_attn\.q_proj: adapters of type LoraLinear"):
        require_mergeable(lm.hf.model.language_model, set())


def test_a_models_own_weights_keep_their_addresses(lm):
    """Otherwise every call would capture its steps again."""
    first = weights.current_weights(lm)
    second = weights.current_weights(lm)
    assert first.addresses() == second.addresses() and first.stops.tolist() == lm.stop_ids
    assert first.is_fixed
    lm.stop_ids = [*lm.stop_ids, 1]
    assert weights.current_weights(lm).stops.tolist() == lm.stop_ids
