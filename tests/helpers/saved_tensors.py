"""What autograd saves in a forward pass, and the sizes of a model for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

SIZES = {
    "audio": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 2}
    | {"num_mel_bins": 16},
    "text": {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    | {"num_key_value_heads": 2},
}  # of an Ark-ASR


def saved_bytes(work: Callable[[], object], parameters: Iterable[torch.Tensor]) -> int:
    """Return the bytes of all tensors that autograd saves for backward, except parameters."""
    known, kept = {p.untyped_storage().data_ptr() for p in parameters}, {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in known)
