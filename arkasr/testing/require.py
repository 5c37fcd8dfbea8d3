"""How a check fails, under `python -O` too, and how tensors are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Require = Callable[[Any, str], None]


def requirer(check: str) -> Require:
    """Return a function (ok, sentence) that raises AssertionError("<check>: <sentence>") where `ok` is false."""

    def require(ok: Any, sentence: str) -> None:
        if not ok:
            raise AssertionError(f"{check}: {sentence}")

    return require


@contextmanager
def attempt(check: str, what: str) -> Iterator[None]:
    """Turn what the plugin itself raises into the failure of a check, said as `what`."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{check}: {what} raises {type(error).__name__}: {error}") from error


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors; equal infinities do not differ, NaN and other shapes do by inf."""
    if a.shape != b.shape:
        return torch.inf
    a, b = a.detach().double(), b.detach().double()
    gaps = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(torch.inf, posinf=torch.inf)
    return float(gaps.max()) if gaps.numel() else 0.0


def is_tensor(value: Any, dtype: torch.dtype, *shape: int) -> bool:
    """Tell whether a value is a tensor of this dtype and shape."""
    return isinstance(value, Tensor) and value.dtype == dtype and tuple(value.shape) == shape


def described(value: Any) -> str:
    """Say a value's type, or a tensor's dtype and shape."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}"
