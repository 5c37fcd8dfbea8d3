"""How a check fails (also under `python -O`), and how it compares and describes tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Require = Callable[[Any, str], None]


def requirer(check: str) -> Require:
    """Return a function that fails a check.

    Args:
        check: Name of the check, the start of its messages.

    Returns:
        A function `require(ok, sentence)`, which raises AssertionError("<check>: <sentence>") if `ok` is false.
    """

    def require(ok: Any, sentence: str) -> None:
        if not ok:
            raise AssertionError(f"{check}: {sentence}")

    return require


@contextmanager
def attempt(check: str, what: str) -> Iterator[None]:
    """Turn an exception that the plugin raises into a failure of the check.

    Args:
        check: Name of the check.
        what: The call that the plugin failed in, as the message names it.

    Yields:
        Nothing.

    Raises:
        AssertionError: "<check>: <what> raises <exception>" if the body raised another exception.
    """
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{check}: {what} raises {type(error).__name__}: {error}") from error


def distance(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference of two tensors.

    Args:
        a: Any tensor.
        b: Any tensor.

    Returns:
        The difference: 0 for equal infinities and for empty tensors, inf for NaN and for different shapes.
    """
    if a.shape != b.shape:
        return torch.inf
    a, b = a.detach().double(), b.detach().double()
    gaps = torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(torch.inf, posinf=torch.inf)
    return float(gaps.max()) if gaps.numel() else 0.0


def is_tensor(value: Any, dtype: torch.dtype, *shape: int) -> bool:
    """Return whether a value is a tensor of a dtype and shape.

    Args:
        value: Any object.
        dtype: The expected dtype.
        *shape: The expected sizes, none for a scalar.

    Returns:
        True if type, dtype and shape agree.
    """
    return isinstance(value, Tensor) and value.dtype == dtype and tuple(value.shape) == shape


def describe(value: Any) -> str:
    """Return a description of a value for messages.

    Args:
        value: Any object.

    Returns:
        dtype and shape of a tensor, such as "float32 [2, 3]", or the type of another object.
    """
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"an object of type {type(value).__name__}"
