"""FSDP2: which modules are sharded together or computed again, and how all weights stay gathered for a whole rollout."""

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
    """Return the class names of the repeated blocks, as the encoder and the decoder themselves declare them."""
    parts = (lm.hf.model.audio_tower, lm.hf.model.language_model)
    return {name for part in parts for name in part._no_split_modules or ()}


def blocks(lm: SpeechLM) -> list[nn.Module]:
    """Return the repeated blocks of encoder and decoder, in what recomputes them where that was asked for."""
    names, modules = block_names(lm), list(lm.modules())
    wrapped = [m for m in modules if isinstance(m, CheckpointWrapper)]
    return wrapped or [m for m in modules if type(m).__name__ in names]


def checkpoint_blocks(lm: SpeechLM) -> SpeechLM:
    """Keep only the inputs of each block for backward, which computes the rest again; to be called before `shard`.

    Parameters keep their names in state dicts.
    """
    names = block_names(lm)
    wrapper = partial(checkpoint_wrapper, checkpoint_fn=_recomputed)
    apply_activation_checkpointing(lm, wrapper, check_fn=lambda module: type(module).__name__ in names)
    return lm


def _recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():  # a rollout calls each block a token: spare it the record of random states
        return block(*args, **kwargs)
    return checkpoint(block, *args, use_reentrant=False, **kwargs)


def shard(
    lm: SpeechLM, mesh: DeviceMesh, compute_dtype: str | None = None, reshard_after_forward: bool = True
) -> SpeechLM:
    """Shard weights, gradients and optimizer state over the last dimension of `mesh`; replicate over the first of two.

    compute_dtype: torch's name of one, None: the weights' own. Gradients are reduced in float32. reshard_after_forward:
    free a block's gathered weights after its forward pass, and gather them again in backward. What belongs to no block
    stays gathered from forward to backward, unless nothing is trained, so that no backward follows.
    """
    dtype = getattr(torch, compute_dtype) if compute_dtype else None
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=dtype is not None)
    trained = any(p.requires_grad for p in lm.parameters())
    reshards = dict.fromkeys(blocks(lm), reshard_after_forward) | {lm: reshard_after_forward and not trained}
    for module, after_forward in reshards.items():
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=after_forward)
        module.reshards = after_forward
    return lm


@contextmanager
def gathered(lm: object) -> Iterator[None]:
    """Gather every weight now, once, and keep it to the end: one collective a module, none a token.

    Inside, ranks may run different modules, different numbers of decoding steps, or nothing. All ranks enter together.
    Does nothing for what is not a sharded model.
    """
    sharded = [m for m in lm.modules() if isinstance(m, FSDPModule)] if isinstance(lm, FSDPModule) else []
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        if sharded:  # inside the model's forward pass, with which FSDP2 sets itself up
            lm(lambda _: [module.unshard() for module in sharded])
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module.reshards, recurse=False)


def mesh_shape(world_size: int, replicate: int, node_size: int) -> tuple[int, ...]:
    """Return (ranks,), or (groups, ranks a group); replicate: groups, 0: one for each `node_size` ranks.

    Raises UserError where that does not divide the ranks.
    """
    groups, over = (replicate, world_size % replicate) if replicate else divmod(world_size, node_size)
    if over:
        wanted = f"{replicate} equal groups" if replicate else f"nodes of {node_size}"
        raise UserError(f"fsdp.replicate={replicate}: {world_size} ranks do not make {wanted}; give a divisor of them")
    return (world_size,) if groups == 1 else (groups, world_size // groups)
