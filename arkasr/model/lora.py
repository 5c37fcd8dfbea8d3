"""LoRA adapters in a model: which layers get them, their creation, and their merging into the weights."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from arkasr.config.schema import LoraConfig, ModelConfig
from arkasr.errors import UserError
from arkasr.model.build import freeze
from arkasr.model.generation.merging import has_adapters, unwrapped
from arkasr.model.speech_lm.auto import SpeechLM

NAME = "default"  # PEFT's name of the only adapter
TOWERS = {"encoder": "model.audio_tower", "decoder": "model.language_model"}
BASE, A, B = ".base_layer.", f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight"  # in names of parameters


def require_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        UserError: It is not.
    """
    if find_spec("peft") is None:
        raise UserError("config key `model.lora.rank`: LoRA needs the package peft; pip install 'arkasr[lora]'")


def adapted_layers(hf: PreTrainedModel, config: ModelConfig) -> dict[str, nn.Linear]:
    """Find the linear layers that get adapters.

    Args:
        hf: A model without adapters, on any device.
        config: The section `model` of the configuration.

    Returns:
        The layers by their name in `hf`. Empty without `lora.rank`.

    Raises:
        UserError: A name in `lora.targets` belongs to none of them.
    """
    if not config.adapted:
        return {}
    layers = {part: _block_layers(hf, tower) for part, tower in TOWERS.items()}
    allowed = {name: layer for part in config.adapted for name, layer in layers[part].items()}
    for target in config.lora.targets:
        if not any(_is_named(name, target) for name in allowed):
            raise UserError(_unknown(target, config, layers, allowed))
    return {
        name: layer
        for name, layer in allowed.items()
        if not config.lora.targets or any(_is_named(name, target) for target in config.lora.targets)
    }


def _block_layers(hf: PreTrainedModel, tower: str) -> dict[str, nn.Linear]:
    part = hf.get_submodule(tower)
    kinds = set(part._no_split_modules or ())  # type: ignore[arg-type]  # every transformers model has it
    blocks = [(name, block) for name, block in part.named_modules() if type(block).__name__ in kinds]
    return {
        f"{tower}.{name}.{inner}": layer
        for name, block in blocks
        for inner, layer in block.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _unknown(target: str, config: ModelConfig, layers: Mapping[str, Mapping[str, Any]], allowed: Mapping) -> str:
    key = f"config key `model.lora.targets` {target!r}"
    for part in layers.keys() - set(config.adapted):
        if any(_is_named(name, target) for name in layers[part]):
            how = "set model.lora.encoder=true" if part == "encoder" else "remove decoder from model.freeze"
            return f"{key}: only the {part} has such a layer, and it gets no adapters; {how} or remove the name"
    known = sorted({name.rpartition(".")[2] for name in allowed})
    near = get_close_matches(target.rpartition(".")[2], known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{key}: no linear layer of the blocks has this name; {hint}use names of {', '.join(known)}"


def train_parts(lm: SpeechLM, config: ModelConfig) -> None:
    """Add the adapters of a run, and exclude from training what it does not train. Call this before sharding.

    Weights of A are drawn from torch's global generator, and those of B are 0. With adapters, all trained weights are
    float32.

    Args:
        lm: The model, changed in place.
        config: The section `model` of the configuration.

    Raises:
        UserError: PEFT is not installed, or see `adapted_layers`.
    """
    if config.adapted:
        require_peft()
        add_adapters(lm, list(adapted_layers(lm.hf, config)), config.lora)
        lm.hf.model.multi_modal_projector.requires_grad_("adapter" not in config.freeze)
        for weight in lm.hf.parameters():
            weight.data = weight.data.float() if weight.requires_grad else weight.data
    else:
        freeze(lm, config.freeze)


def add_adapters(lm: SpeechLM, names: list[str], lora: LoraConfig) -> None:
    """Replace linear layers by layers of PEFT that add `B A` to them. All other weights are frozen.

    Args:
        lm: The model, changed in place.
        names: Names of the layers in `lm.hf`.
        lora: Rank, alpha and dropout.
    """
    import peft  # takes seconds

    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number
        lora_dropout=lora.dropout,
        target_modules=names,
    )
    peft.inject_adapter_in_model(settings, lm.hf, NAME)


def merged(state: Mapping[str, Tensor], hf: PreTrainedModel) -> dict[str, Tensor]:
    """Merge adapters into the weights: W + (alpha / rank) B A, in float32, rounded to the data type of W.

    Args:
        state: Tensors by their names in `hf`, such as its state dictionary, or one that was gathered from shards.
        hf: The model with adapters.

    Returns:
        Tensors by the names of the model without adapters. Trained weights have the data type of the others.
    """
    if not has_adapters(hf):
        return dict(state)
    scaling = {unwrapped(name): layer.scaling[NAME] for name, layer in hf.named_modules() if hasattr(layer, "lora_A")}
    trained = {unwrapped(name) for name, weight in hf.named_parameters() if weight.requires_grad}
    dtype = next(tensor.dtype for name, tensor in state.items() if BASE in name)
    result = {}
    for name, tensor in state.items():
        layer, is_base, attribute = name.partition(BASE)
        if name.endswith((A, B)):
            continue
        if is_base and attribute == "weight":
            delta = scaling[layer] * (state[layer + B].float() @ state[layer + A].float())
            tensor = (tensor.float() + delta).to(tensor.dtype)
        result[name.replace(BASE, ".")] = tensor.to(dtype) if name in trained else tensor
    return result


@torch.no_grad()
def merge_adapters(lm: SpeechLM) -> SpeechLM:
    """Merge the adapters of an unsharded model into its weights and remove them.

    Args:
        lm: The model, changed in place.

    Returns:
        The same model, as before `add_adapters` but with other weights.
    """
    weights = merged(lm.hf.state_dict(), lm.hf)
    for name, layer in [(n, m) for n, m in lm.hf.named_modules() if hasattr(m, "lora_A")]:
        owner, _, attribute = name.rpartition(".")
        setattr(lm.hf.get_submodule(owner), attribute, layer.base_layer)
    for name, weight in lm.hf.named_parameters():
        weight.data = weights[name]
    del lm.hf.peft_config
    return lm.requires_grad_(True)
