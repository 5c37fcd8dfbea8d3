"""Kernels and bytes of a piece of work on the CPU, counted from the aten operations that it runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")
WITHOUT_KERNEL = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach")


class KernelCounts(TorchDispatchMode):
    """Count operations that compute, and what those beside matrix products read and write.

    Attributes:
        kernels: Number of operations that are not views and do not only allocate.
        moved: Bytes of their inputs and outputs, without matrix products, convolutions and attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.moved = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        inputs, outputs = ([t for t in tree_leaves(tree) if isinstance(t, Tensor)] for tree in ((args, kwargs), result))
        pointers = {t.untyped_storage().data_ptr() for t in inputs}
        is_view = all(t.untyped_storage().data_ptr() in pointers for t in outputs) and not func._schema.is_mutable
        if not is_view and name not in WITHOUT_KERNEL:
            self.kernels += 1
            if name not in PRODUCTS and "attention" not in name:
                self.moved += sum(_bytes(t) for t in inputs + outputs)
        return result


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor. Expanded dimensions are stored once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def count_kernels(work: Any) -> KernelCounts:
    """Run `work` and return its counts."""
    with KernelCounts() as counts:
        work()
    return counts
