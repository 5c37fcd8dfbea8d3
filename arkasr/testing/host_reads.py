"""Counts host reads: places where the host waits for the device, or copies unpinned memory to it.

A GPU works through a queue that the host fills. A host read stops the host until the queue is empty, and the GPU then
idles until the host has filled the queue again. This module counts host reads on a CPU. All tensors are treated as if
they were on a device, except those that are clearly on the host:

- the result of a factory that was called without a device, such as `torch.tensor([1, 2])` or `torch.arange(3)`
- the result of `Tensor.cpu()`
- the result of an operation on such tensors only

Counted are:

- values read from the device: `item`, `tolist`, `cpu`, `numpy`, `bool`, `int`, `float`, an index into a list, `print`
- operations whose shape or result depends on values of the device: `nonzero`, boolean indexing, `masked_select`,
  `unique`, `bincount`, `torch.equal`, `torch.allclose`, `repeat_interleave` without `output_size`
- copies from the host without `non_blocking=True`: `torch.tensor(values, device=...)`, `new_tensor`, `to(device)` and
  `copy_` of a tensor on the host, an index that is a list or a tensor on the host
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READERS = ("cpu", "numpy", "tolist")  # methods that read without an aten operation. All others end in one of WAITING
COPIERS = {"as_tensor", "asarray", "tensor"}  # factories that copy values from the host
FACTORIES = COPIERS | {"arange", "empty", "eye", "from_numpy", "full", "linspace", "ones", "rand", "randint", "randn"}
FACTORIES |= {"randperm", "zeros"}
WAITING = {"_local_scalar_dense", "_unique", "_unique2", "allclose", "bincount", "equal", "masked_select", "nonzero"}
WAITING |= {"unique_consecutive", "unique_dim", "unique_dim_consecutive"}
INDEXING = {"_index_put_impl_", "index", "index_put", "index_put_"}
PACKAGE, TORCH = Path(__file__).parents[1], Path(torch.__file__).parent


@dataclass
class HostReads:
    """What `count_host_reads` has counted so far.

    Attributes:
        by_place: Number of host reads by place, "file:line (kind)". The place is the innermost line inside arkasr, or
            that of the caller.
        mixed: Number of operations by place that combine tensors of the host and of the device, which a GPU refuses.
        ops: Number of aten operations.
        launches: Number of aten operations that are not views, about the number of kernels that a GPU would launch.
    """

    by_place: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)
    ops: int = 0
    launches: int = 0

    @property
    def total(self) -> int:
        """Number of host reads."""
        return sum(self.by_place.values())


@contextmanager
def count_host_reads() -> Iterator[HostReads]:
    """Count the host reads of the body, as if all its tensors were on a device. See the module for what counts.

    Tensors that exist before the body count as tensors on the device. Contexts may be nested: each counts.

    Yields:
        The counts, which grow while the body runs.
    """
    counts = HostReads()
    with _both_modes(lambda kind: counts.by_place.update([_place(kind)]), counts):
        yield counts


@contextmanager
def forbid_host_reads() -> Iterator[None]:
    """Raise at the first host read of the body.

    Yields:
        None.

    Raises:
        AssertionError: The body reads from the device. The message names kind and place.
    """

    def refuse(kind: str) -> None:
        raise AssertionError(f"host read at {_place(kind)}; keep the value on the device, or read it elsewhere")

    with _both_modes(refuse, HostReads()):
        yield


def _both_modes(note: Callable[[str], None], counts: HostReads) -> ExitStack:
    stack = ExitStack()
    operations = _Operations(note, counts)
    stack.enter_context(operations)
    stack.enter_context(_Calls(note, operations))
    for name in READERS:  # a function mode would not see calls in the backward pass
        stack.enter_context(_method(name, _noting(note, getattr(Tensor, name))))
    return stack


@contextmanager
def _method(name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of all tensors, which may be inherited."""
    before = vars(Tensor).get(name)
    setattr(Tensor, name, method)
    try:
        yield
    finally:
        delattr(Tensor, name)
        if before is not None:
            setattr(Tensor, name, before)


def _noting(note: Callable[[str], None], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that notes its calls on tensors of the device."""

    @wraps(method)
    def noting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not _on_host(tensor):
            note(method.__name__)
        with torch._C.DisableTorchFunction():  # the mode would call this function again
            result = method(tensor, *args, **kwargs)
        return _relabelled(result, tensor, True) if isinstance(result, Tensor) else result

    return noting


def _place(kind: str) -> str:
    """Return file, line and kind of a host read: the innermost frame in arkasr, else the innermost outside torch."""
    frame: FrameType | None = sys._getframe(1)
    outside = ""
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file != Path(__file__) and TORCH not in file.parents and file.name != "contextlib.py":
            inside = PACKAGE in file.parents
            name = file.relative_to(PACKAGE.parent) if inside else file.name
            if inside:
                return f"{name}:{frame.f_lineno} ({kind})"
            outside = outside or f"{name}:{frame.f_lineno} ({kind})"
        frame = frame.f_back
    return outside


def _on_host(tensor: object) -> bool:
    return getattr(tensor, "_counts_as_host", False)


def _set_host(result: Any, on_host: bool) -> None:
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            leaf._counts_as_host = on_host  # type: ignore[attr-defined]


class _Operations(TorchDispatchMode):
    """Counts aten operations, and notes those that wait. It also sees the operations inside torch's own functions."""

    def __init__(self, note: Callable[[str], None], counts: HostReads):
        super().__init__()
        self.note, self.counts, self.noted = note, counts, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.counts.ops += 1
        self.counts.launches += not func.is_view and func.overloadpacket is not torch.ops.aten.lift_fresh
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_host = [_on_host(t) for t in tensors]
        name = func.overloadpacket.__name__
        if tensors and not all(on_host):
            if not self.noted and (kind := _waits(name, func, args, kwargs)):
                self.note(kind)
            large = any(_on_host(t) and t.ndim for t in tensors)
            if large and name not in INDEXING | {"copy_", "_to_copy"}:
                self.counts.mixed[_place(name)] += 1
        result = func(*args, **kwargs)
        if tensors and all(on_host):
            _set_host(result, True)
        return result


def _waits(name: str, func: Any, args: Any, kwargs: Any) -> str:
    """Return the kind of host read that an operation is, or an empty string."""
    if name in INDEXING:
        indices = [i for i in args[1] if i is not None]
        masked = any(i.dtype in (torch.bool, torch.uint8) for i in indices)
        if masked and not (name != "index" and args[2].numel() == 1):  # one value is written by masked_fill
            return "boolean index"
        return "index on the host" if any(map(_on_host, indices)) and not _on_host(args[0]) else ""
    if name == "repeat_interleave" and kwargs.get("output_size") is None and func._overloadname == "Tensor":
        return "repeat_interleave"
    if name == "copy_":
        blocks = not (args[2:3] == (True,) or kwargs.get("non_blocking"))
        return "copy_" if blocks and _on_host(args[0]) != _on_host(args[1]) and args[1].ndim else ""
    return name if name in WAITING else ""


class _Calls(TorchFunctionMode):
    """Notes the calls that copy from the host, and records which tensors are on the host."""

    def __init__(self, note: Callable[[str], None], operations: _Operations):
        super().__init__()
        self.note, self.operations = note, operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        kind = _reads(name, args, kwargs)
        if kind:
            self.note(kind)
        before, self.operations.noted = self.operations.noted, self.operations.noted or bool(kind)
        try:
            result = func(*args, **kwargs)
        finally:
            self.operations.noted = before
        if name in FACTORIES and kwargs.get("device") is None and not (args and isinstance(args[0], Tensor)):
            _set_host(result, True)
        elif _moves(name, args, kwargs):
            result = _relabelled(result, args[0], False)
        return result


def _relabelled(result: Any, source: Any, on_host: bool) -> Any:
    result = result.view_as(result) if result is source else result  # on a CPU a copy to the device is the same object
    _set_host(result, on_host)
    return result


def _moves(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether a call brings its first argument to a device."""
    if name == "to":
        return kwargs.get("device") is not None or isinstance(args[1:2][0] if args[1:2] else None, (str, torch.device))
    return name in COPIERS and kwargs.get("device") is not None


def _reads(name: str, args: Any, kwargs: Any) -> str:
    """Return the kind of host read that a call is, or an empty string."""
    first = args[0] if args else None
    if _moves(name, args, kwargs):
        from_host = _on_host(first) if isinstance(first, Tensor) else True
        return f"{name} on the device" if from_host and not kwargs.get("non_blocking") else ""
    if name == "new_tensor":
        return "" if _on_host(first) else name
    if name in ("__getitem__", "__setitem__") and not _on_host(first):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return "index on the host" if any(isinstance(i, (list, range)) for i in index) else ""
    return ""
