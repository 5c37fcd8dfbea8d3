"""The weights of a decoder as its forward pass uses them: gathered, with adapters merged, without wrappers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

WRAPPED = "_checkpoint_wrapped_module"  # attribute of torch's CheckpointWrapper
ADAPTED = "base_layer"  # attribute of a layer of PEFT: the layer without its adapters


class UnmergeableError(Exception):
    """A module computes with more than its weights, in a way that is not known here."""


def has_adapters(source: nn.Module) -> bool:
    """Return whether a module has adapters of PEFT.

    Args:
        source: The module.

    Returns:
        True if one of its layers wraps another.
    """
    return any(hasattr(module, ADAPTED) for module in source.modules())


def require_mergeable(source: nn.Module, names: Collection[str]) -> None:
    """Check that all parameters are known, or belong to adapters that can be merged.

    Args:
        source: The module.
        names: Names of the parameters of the same module without adapters and wrappers.

    Raises:
        UnmergeableError: There is another parameter, or an adapter does not only add to the weight.
    """
    adapted = {unwrapped(path): m for path, m in source.named_modules() if hasattr(m, ADAPTED)}
    for path, module in adapted.items():
        if not hasattr(module, "get_delta_weight") or getattr(module, "lora_variant", None):
            raise UnmergeableError(f"{path}: adapters of type {type(module).__name__} cannot be merged into its weight")
    for name, _ in source.named_parameters(remove_duplicate=False):
        name = unwrapped(name)
        known = name in names or ".parametrizations." in name
        if not known and not any(name.startswith(path + ".") for path in adapted):
            raise UnmergeableError(f"{name}: not a parameter of this kind of decoder, so it cannot be merged")


def merged_value(source: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer by the name that it has without adapters and wrappers.

    Args:
        source: The module.
        name: The name.

    Returns:
        The tensor, detached. Sharded tensors are gathered, which all ranks must do together.
    """
    module, attribute = _place(source, name)
    base = getattr(module, ADAPTED, module)
    value = _whole(getattr(base, attribute))
    if base is not module and attribute == "weight" and not module.merged and not module.disable_adapters:
        deltas = [_whole(module.get_delta_weight(adapter)).float() for adapter in module.active_adapters]
        value = sum(deltas, value.float()).to(value.dtype)
    return value


def is_adapted(source: nn.Module, name: str) -> bool:
    """Return whether a parameter belongs to a layer with adapters, so that its merged value is a new tensor.

    Args:
        source: The module.
        name: Name of the parameter or buffer without adapters and wrappers.

    Returns:
        True for weight and bias of such a layer.
    """
    return hasattr(_place(source, name)[0], ADAPTED)


def _place(source: nn.Module, name: str) -> tuple[Any, str]:
    *path, attribute = name.split(".")
    module: Any = source
    for part in path:
        module = _module(getattr(module, part))
    return module, attribute


def unwrapped(name: str) -> str:
    """Return the name of a module or parameter without the wrappers of activation checkpointing.

    Args:
        name: The name.

    Returns:
        The name, as in state dictionaries.
    """
    return name.replace(WRAPPED + ".", "")


def _module(wrapper: nn.Module) -> nn.Module:
    return getattr(wrapper, WRAPPED, wrapper)


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()
