"""FSDP2: which modules are sharded together, and how all weights stay gathered for a whole rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from arkasr.model.speech_lm import SpeechLM


def block_names(lm: SpeechLM) -> set[str]:
    """Return the class names of the repeated blocks, as the encoder and the decoder themselves declare them."""
    parts = (lm.hf.model.audio_tower, lm.hf.model.language_model)
    return {name for part in parts for name in part._no_split_modules or ()}


def shard(lm: SpeechLM, mesh: DeviceMesh, compute_dtype: str) -> SpeechLM:
    """Shard weights, gradients and optimizer state over `mesh`; compute in `compute_dtype`, reduce in float32."""
    policy = MixedPrecisionPolicy(param_dtype=getattr(torch, compute_dtype), reduce_dtype=torch.float32)
    names = block_names(lm)
    for module in lm.modules():
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    return fully_shard(lm, mesh=mesh, mp_policy=policy)


@contextmanager
def gathered(lm: SpeechLM) -> Iterator[None]:
    """Keep every weight gathered from its first use to the end: one collective a module, none a token.

    Inside, ranks may run different numbers of decoding steps. Does nothing for a model that is not sharded.
    """
    sharded = [m for m in lm.modules() if isinstance(m, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not lm, recurse=False)
