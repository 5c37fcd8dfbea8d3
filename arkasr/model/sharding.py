"""FSDP2 and activation checkpointing: the blocks of a model, their sharding, and weights gathered for a rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointWrapper,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from arkasr.errors import UserError
from arkasr.model.speech_lm.auto import SpeechLM


def block_names(lm: SpeechLM) -> set[str]:
    """Return the class names of the repeated blocks, as declared by the encoder and decoder classes.

    Args:
        lm: The model.

    Returns:
        Class names such as "Qwen2DecoderLayer".
    """
    parts = (lm.hf.model.audio_tower, lm.hf.model.language_model)
    return {name for part in parts for name in part._no_split_modules or ()}


def blocks(lm: SpeechLM) -> list[nn.Module]:
    """Return the repeated blocks of encoder and decoder.

    Args:
        lm: The model, before or after `checkpoint_blocks`.

    Returns:
        The blocks, or their wrappers if activations are checkpointed.
    """
    names, modules = block_names(lm), list(lm.modules())
    wrapped: list[nn.Module] = [m for m in modules if isinstance(m, CheckpointWrapper)]
    return wrapped or [m for m in modules if type(m).__name__ in names]


def checkpoint_blocks(lm: SpeechLM) -> SpeechLM:
    """Checkpoint the activations of each block: keep only its inputs, and compute the rest again in backward.

    Call this before `shard`. Parameters keep their names in state dicts.

    Args:
        lm: The model, changed in place.

    Returns:
        The same model.
    """
    names = block_names(lm)
    wrapper = partial(checkpoint_wrapper, checkpoint_fn=_recomputed)
    apply_activation_checkpointing(lm, wrapper, check_fn=lambda module: type(module).__name__ in names)
    return lm


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():  # decoding calls each block at every token: do not record random states
        return block(*args, **kwargs)
    return checkpoint(block, *args, use_reentrant=False, **kwargs)


def shard(
    lm: SpeechLM, mesh: DeviceMesh, compute_dtype: str | None = None, reshard_after_forward: bool = True
) -> SpeechLM:
    """Shard weights, gradients and optimizer state with FSDP2. Gradients are reduced in float32.

    Weights outside blocks stay gathered from forward to backward, unless nothing is trained and no backward follows.

    Args:
        lm: The model, changed in place.
        mesh: One dimension: shard over it. Two dimensions: replicate over the first and shard over the second.
        compute_dtype: Name of a torch dtype for forward and backward. None uses that of the weights.
        reshard_after_forward: Free the gathered weights of a block after its forward pass and gather them again in
            backward.

    Returns:
        The same model.
    """
    dtype = getattr(torch, compute_dtype) if compute_dtype else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=dtype is not None)
    trained = any(p.requires_grad for p in lm.parameters())
    settings = dict.fromkeys(blocks(lm), reshard_after_forward) | {lm: reshard_after_forward and not trained}
    for module, reshard in settings.items():
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
        module.reshards = reshard  # type: ignore[assignment]  # a flag, which `gathered` reads
    return lm


@contextmanager
def gathered(lm: object) -> Iterator[None]:
    """Gather all weights once and keep them inside the context: one collective per module, none per token.

    Inside, ranks may run different modules, different numbers of decoding steps, or nothing. All ranks must enter the
    context together. For anything but a sharded model this does nothing.

    Args:
        lm: A model or any other object.
    """
    sharded: list[Any] = []
    if isinstance(lm, nn.Module) and isinstance(lm, FSDPModule):
        sharded = [m for m in lm.modules() if isinstance(m, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        if sharded:  # sharded[0] is `lm`: FSDP2 initialises itself in the forward pass of the whole model
            sharded[0](lambda _: [module.unshard() for module in sharded])
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module.reshards, recurse=False)


def mesh_shape(world_size: int, replicate: int, node_size: int) -> tuple[int, ...]:
    """Return the shape of the device mesh.

    Args:
        world_size: Number of ranks.
        replicate: Number of groups that each hold a whole model (`fsdp.replicate`). 0 makes one group per node.
        node_size: Ranks per node.

    Returns:
        (ranks,) for one group, else (groups, ranks per group).

    Raises:
        UserError: The ranks cannot be split into equal groups.
    """
    groups, rest = (replicate, world_size % replicate) if replicate else divmod(world_size, node_size)
    if rest:
        wanted = f"{replicate} equal groups" if replicate else f"nodes of {node_size}"
        raise UserError(
            f"fsdp.replicate={replicate}: {world_size} ranks cannot be split into {wanted}; use a divisor of the "
            "number of ranks"
        )
    return (world_size,) if groups == 1 else (groups, world_size // groups)
