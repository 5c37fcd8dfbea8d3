"""The decoder and head that generate: the model's own, or a copy of them in the dtype of the computation.

A sharded model, or one under autocast, would gather or cast every weight again at every token. Such a model generates
with a copy, which `current_weights` refreshes once per call. The copy keeps its memory, so that captured CUDA graphs
stay valid.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModel, PreTrainedModel

from arkasr.model.generation.merging import UnmergeableError, has_adapters, is_adapted, merged_value, require_mergeable
from arkasr.model.speech_lm.auto import SpeechLM
from arkasr.utils.console import log
from arkasr.utils.devices import to_device


@dataclass
class DecoderWeights:
    """What a decoding step reads.

    Attributes:
        decoder: A decoder of transformers, without head.
        head: Tensor [V, H].
        blocked: Tensor [V], bool, ids that are never chosen.
        stops: Tensor [number of stop ids], int64.
        is_copy: Whether decoder and head are a copy.
        is_fixed: Whether steps read these very tensors. False if each step gathers or casts them, so that it cannot be
            captured.
    """

    decoder: PreTrainedModel
    head: Tensor
    blocked: Tensor
    stops: Tensor
    is_copy: bool
    is_fixed: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the computation."""
        return self.head.dtype

    def addresses(self) -> tuple[int, ...]:
        """Return where the weights are. A captured graph is valid as long as this is the same."""
        tensors = [*self.decoder.parameters(), *self.decoder.buffers(), self.head, self.blocked, self.stops]
        return tuple(tensor.data_ptr() for tensor in tensors)


_copies: WeakKeyDictionary[SpeechLM, DecoderWeights] = WeakKeyDictionary()
_stop_ids: WeakKeyDictionary[SpeechLM, tuple[tuple[tuple[int, ...], torch.device], Tensor]] = WeakKeyDictionary()
_warned: WeakKeyDictionary[SpeechLM, bool] = WeakKeyDictionary()


def cache_argument(module: nn.Module) -> str:
    """Return the name of the argument by which a transformers module takes its key-value cache.

    transformers 5.24 renamed `past_key_values` to `cache` and will remove the old name in 5.40.

    Args:
        module: A transformers model or decoder whose `forward` can use a cache.

    Returns:
        "cache" or "past_key_values".
    """
    return "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"


def current_weights(lm: SpeechLM) -> DecoderWeights:
    """Return decoder and head with the present weights of a model.

    The model's own are returned if they can be used as they are: whole, in the dtype of the computation, and without
    adapters. Otherwise they are copied. Adapters of PEFT and parametrizations are merged in the copy.

    Args:
        lm: The model. If it is sharded, all ranks must call this together, or inside `arkasr.model.sharding.gathered`.

    Returns:
        The weights, detached.
    """
    device = lm.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else lm.head.dtype
    is_fixed = not isinstance(lm, FSDPModule) and dtype == lm.head.dtype
    if not is_fixed or has_adapters(lm.hf.model.language_model):
        try:
            with torch.autocast(device, enabled=False):  # adapters are merged in their own dtype
                return _refreshed(lm, dtype)
        except UnmergeableError as error:
            if lm not in _warned and not is_fixed:
                log(f"warning: {error}; every generated token gathers or casts the decoder's weights again")
                _warned[lm] = True
            return replace(_own(lm), is_fixed=is_fixed)
    return _own(lm)


def _own(lm: SpeechLM) -> DecoderWeights:
    return DecoderWeights(lm.hf.model.language_model, lm.head.detach(), lm.blocked, _stops(lm), False)


def _stops(lm: SpeechLM) -> Tensor:
    """Return the stop ids on the device. They keep their address as long as they and the device are the same."""
    key = (tuple(lm.stop_ids), lm.device)
    if lm not in _stop_ids or _stop_ids[lm][0] != key:
        _stop_ids[lm] = key, to_device(lm.stop_ids, lm.device)
    return _stop_ids[lm][1]


@torch.no_grad()
def _refreshed(lm: SpeechLM, dtype: torch.dtype) -> DecoderWeights:
    """Copy the present weights. `_foreach_copy_` casts all in a few kernels. Merged weights exist one by one."""
    copy, source = _copies.get(lm), lm.hf.model.language_model
    if copy is None or copy.dtype != dtype or copy.head.device != lm.device:
        copy = _copies[lm] = _empty_copy(lm, dtype)
    for targets in (dict(copy.decoder.named_parameters()), dict(copy.decoder.named_buffers())):  # of one dtype each
        adapted = {name for name in targets if is_adapted(source, name)}
        plain = [name for name in targets if name not in adapted]
        torch._foreach_copy_([targets[name] for name in plain], [merged_value(source, name) for name in plain])
        for name in adapted:
            targets[name].copy_(merged_value(source, name))
    if not _is_tied(lm):
        copy.head.copy_(merged_value(lm.hf, "lm_head.weight"))
    copy.blocked, copy.stops = lm.blocked, _stops(lm)
    return copy


def _empty_copy(lm: SpeechLM, dtype: torch.dtype) -> DecoderWeights:
    """Allocate a copy. Buffers keep their dtype, because rotary frequencies are float32 in any model."""
    source, own = lm.hf.model.language_model, _own(lm)
    with torch.device("meta"):
        decoder = AutoModel.from_config(lm.hf.config.text_config, trust_remote_code=False)
    require_mergeable(source, {name for name, _ in decoder.named_parameters()})
    decoder.to(dtype)
    buffers = {name: merged_value(source, name) for name, _ in decoder.named_buffers()}
    decoder.to_empty(device=lm.device)
    for name, buffer in buffers.items():
        owner, _, attribute = name.rpartition(".")
        setattr(decoder.get_submodule(owner), attribute, torch.empty_like(buffer, device=lm.device))
    table = decoder.get_input_embeddings().weight
    head = table if _is_tied(lm) else torch.empty(own.head.shape, dtype=dtype, device=lm.device)
    return DecoderWeights(decoder.eval().requires_grad_(False), head.detach(), own.blocked, own.stops, True)


def _is_tied(lm: SpeechLM) -> bool:
    return lm.hf.lm_head.weight is lm.hf.get_input_embeddings().weight
