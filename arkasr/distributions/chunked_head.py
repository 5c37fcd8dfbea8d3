"""Losses from hidden states and the output head, computed without a full logit table [P, V].

The logits are `states @ weight.T` with states [P, H] and weight [V, H]. Only the logits of a few positions exist at one
time (`block_rows`). All arithmetic is float32 for any dtype of states and weight, under autocast too (see `products`).
Each gradient has the dtype of its tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from arkasr.distributions.logits import row_spans
from arkasr.distributions.products import add_product, product, scores, widened

ROWS = 128  # positions whose logits exist at one time. With fewer, products with the head use a CPU badly
GPU_LOGITS = 2**28  # logits that exist at one time on a GPU: 1 GiB in float32
GATHERED = 2**21  # elements of the head that are gathered at one time: 8 MiB in float32
GPU_GATHERED = 2**26  # the same on a GPU: 256 MiB in float32

Read = Callable[..., tuple[Tensor, ...]]


def full_scores(states: Tensor, weight: Tensor) -> Tensor:
    """Return the logits of all tokens, with gradient through autograd.

    Args:
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.

    Returns:
        Tensor [P, V], float32.
    """
    return scores(states, weight)


def block_rows(vocab_size: int, device_type: str) -> int:
    """Return the number of positions whose logits exist at one time.

    Args:
        vocab_size: V.
        device_type: Type of the device, such as "cuda".

    Returns:
        At least `ROWS`.
    """
    return max(ROWS, GPU_LOGITS // vocab_size) if device_type == "cuda" else ROWS


def pair_scores(states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Return the logits of selected tokens: dot products of each state with some rows of the head.

    Args:
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.
        ids: Tensor [P, U], int64, token ids.

    Returns:
        Tensor [P, U], float32, with gradient to states and weight.
    """
    apply = cast("Callable[..., Tensor]", _PairScores.apply)  # torch does not annotate Function.apply
    return apply(states, weight, ids)


def in_parts(read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
    """Call `read` on the logits of a few positions at a time and concatenate the results.

    Args:
        read: Function of (logits [R, V], *rows of the tables). It returns tensors with one row per position. It is
            called again in the backward pass, so its result must depend on its arguments only.
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.
        *tables: Tensors [P, ...], further arguments of `read`. They receive no gradient.

    Returns:
        The outputs of `read` for all P positions, with gradient to states and weight.
    """
    if len(states) <= ROWS:
        return read(full_scores(states, weight), *tables)
    apply = cast("Callable[..., tuple[Tensor, ...]]", _Parts.apply)
    return apply(read, states, weight, *tables)


def sum_in_parts(read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
    """Call `read` on the logits of a few positions at a time and add up its sums and counts.

    The gradient of each part is computed in the forward pass and overwrites the logits of the part. The logits are
    therefore computed once, while `in_parts` computes them again in the backward pass. The backward pass can run only
    once: a second one raises RuntimeError.

    Args:
        read: Function of (logits [R, V], *rows of the tables). It returns a sum (float32 scalar) and a count (int64
            scalar).
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.
        *tables: Tensors [P, ...], further arguments of `read`. They receive no gradient.

    Returns:
        The total (float32 scalar, with gradient to states and weight) and the total count (int64 scalar).
    """
    if not torch.is_grad_enabled():  # needs_input_grad of a Function does not depend on the grad mode
        states, weight = states.detach(), weight.detach()
    apply = cast("Callable[..., tuple[Tensor, Tensor]]", _Sum.apply)
    return apply(read, states, weight, *tables)


class _Parts(torch.autograd.Function):
    """`in_parts`. Activation checkpointing would allocate one gradient of the head per part. This adds into one."""

    @staticmethod
    def forward(ctx: Any, read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        ctx.read = read
        ctx.save_for_backward(states, weight, *tables)
        parts = [
            read(logits[span], *(table[rows][span] for table in tables))
            for rows, logits in _blocks(states, widened(weight))
            for span in row_spans(logits)
        ]
        joined = tuple(torch.cat(pieces) for pieces in zip(*parts))
        ctx.mark_non_differentiable(*(piece for piece in joined if not piece.is_floating_point()))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the logits of each part again, and the gradient through them."""
        states, weight, *tables = ctx.saved_tensors
        gradients = _Gradients(ctx.needs_input_grad[1:3], states, weight)
        for rows, logits in _blocks(states, gradients.wide):
            for span in row_spans(logits):
                leaf = logits[span].detach().requires_grad_()
                with torch.enable_grad():
                    outputs = ctx.read(leaf, *(table[rows][span] for table in tables))
                pairs = [(out, grad[rows][span]) for out, grad in zip(outputs, grads) if out.requires_grad]
                outputs, upstream = zip(*pairs)
                logits[span] = torch.autograd.grad(outputs, leaf, upstream)[0]
            gradients.add(rows, logits)
        return (None, *gradients.in_own_dtypes(), *(None for _ in tables))


class _Sum(torch.autograd.Function):
    """`sum_in_parts`. The upstream gradient is one number, so the forward pass can compute everything else."""

    @staticmethod
    def forward(ctx: Any, read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        gradients, results = _Gradients(ctx.needs_input_grad[1:3], states, weight), []
        for rows, logits in _blocks(states, gradients.wide):
            results += [
                _read_over(read, logits[span], [t[rows][span] for t in tables], gradients.wanted)
                for span in row_spans(logits)
            ]
            gradients.add(rows, logits)
        ctx.sums, ctx.dtypes, ctx.num_tables = gradients.sums, gradients.dtypes, len(tables)
        if not results:
            return states.new_zeros((), dtype=torch.float32), torch.zeros((), dtype=torch.long, device=states.device)
        total, count = (torch.stack(parts).sum() for parts in zip(*results))
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Scale the gradients of the forward pass in place."""
        if ctx.sums is None:
            raise RuntimeError("sum_in_parts: backward can run once per forward pass; run the forward pass again")
        scaled, ctx.sums = [None if s is None else s.mul_(grad) for s in ctx.sums], None
        return (None, *_cast(scaled, ctx.dtypes), *(None for _ in range(ctx.num_tables)))


def _blocks(states: Tensor, wide: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield a few positions at a time with their logits [R, V]. The caller may overwrite the logits."""
    size = block_rows(len(wide), wide.device.type)
    for start in range(0, len(states), size):
        rows = slice(start, start + size)
        yield rows, full_scores(states[rows], wide)


def _read_over(read: Read, logits: Tensor, tables: list[Tensor], wanted: bool) -> tuple[Tensor, Tensor]:
    """Return sum and count of one part. If a gradient is wanted, it overwrites the logits."""
    leaf = logits.detach().requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        total, count = read(leaf, *tables)
    if wanted:
        logits.copy_(torch.autograd.grad(total, leaf)[0]) if total.requires_grad else logits.zero_()
    return total.detach(), count


class _PairScores(torch.autograd.Function):
    """`pair_scores`. The rows of the head are gathered in the forward and again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight, ids)
        logits = torch.empty(ids.shape, dtype=torch.float32, device=states.device)
        for rows in _gathers(ids, weight):
            logits[rows] = product(weight[ids[rows]], states[rows][:, :, None]).squeeze(-1)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Accumulate both gradients in float32."""
        states, weight, ids = ctx.saved_tensors
        grad_states, grad_weight = sums = _sums(ctx.needs_input_grad, states, weight)
        for rows in _gathers(ids, weight):
            if grad_states is not None:
                grad_states[rows] = product(grad[rows][:, None], weight[ids[rows]]).squeeze(1)
            if grad_weight is not None:
                outer = grad[rows][:, :, None] * states[rows].float()[:, None]
                grad_weight.index_add_(0, ids[rows].flatten(), outer.flatten(0, 1))
        return (*_cast(sums, (states.dtype, weight.dtype)), None)


def _gathers(ids: Tensor, weight: Tensor) -> list[slice]:
    limit = GPU_GATHERED if weight.is_cuda else GATHERED
    size = max(1, limit // max(1, ids.shape[1] * weight.shape[1]))
    return [slice(start, start + size) for start in range(0, len(ids), size)]


class _Gradients:
    """Accumulates the gradients of states [P, H] and weight [V, H] from those of the logits.

    `needed` has one entry for the states and one for the weight. Only needed gradients are allocated.
    """

    def __init__(self, needed: Sequence[bool], states: Tensor, weight: Tensor):
        self.states, self.wide, self.dtypes = states, widened(weight), (states.dtype, weight.dtype)
        self.sums, self.wanted = _sums(needed, states, weight), any(needed)

    def add(self, rows: slice, grad_scores: Tensor) -> None:
        """Add the contribution of the logits' gradient [R, V] at `rows`."""
        grad_states, grad_weight = self.sums
        if grad_states is not None:
            grad_states[rows] = product(grad_scores, self.wide)
        if grad_weight is not None:
            add_product(grad_weight, grad_scores.T, self.states[rows])

    def in_own_dtypes(self) -> list[Tensor | None]:
        """Return both gradients in the dtypes of states and weight."""
        return _cast(self.sums, self.dtypes)


def _sums(needed: Sequence[bool], *of: Tensor) -> list[Tensor | None]:
    """Allocate a float32 gradient for each tensor that needs one."""
    return [torch.zeros(t.shape, dtype=torch.float32, device=t.device) if n else None for n, t in zip(needed, of)]


def _cast(sums: Sequence[Tensor | None], dtypes: Sequence[torch.dtype]) -> list[Tensor | None]:
    return [None if s is None else s.to(dtype) for s, dtype in zip(sums, dtypes)]
