"""What a loss reads from hidden states and the output head's weight, and its gradient, without a table [P, V].

States are [P, H], the weight [V, H], both of any floating dtype; scores, sums and gradients on the way are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from arkasr.distributions.logits import row_spans

ROWS = 128  # positions whose logits exist at one time: with fewer, products with the head waste a CPU
GATHERED = 2**21  # elements of the head that are gathered at one time: 8 MiB in float32

Read = Callable[..., tuple[Tensor, ...]]


def full_scores(states: Tensor, weight: Tensor) -> Tensor:
    """Return scores [P, V] of all tokens, as autograd keeps them."""
    with torch.autocast(states.device.type, enabled=False):
        return states.float() @ weight.float().T


def pair_scores(states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    """Return dot products [P, U] of each state with the head's rows `ids` (int64 [P, U])."""
    return _PairScores.apply(states, weight, ids)


def in_parts(read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
    """Join what read(scores, *rows of tables) makes of ROWS positions at a time.

    tables: [P, ...]. read returns tensors with a row a position, and is called again in backward, so it must depend on
    its arguments alone; no gradient flows into the tables.
    """
    if len(states) <= ROWS:
        return read(full_scores(states, weight), *tables)
    return _Parts.apply(read, states, weight, *tables)


def sum_in_parts(read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the sum (with gradient) and the count that read(scores, *rows of tables) makes of some positions.

    Each part's gradient is taken along with its sum, in place of its scores: these are formed once, while `in_parts`
    forms them again in backward. A second backward pass raises RuntimeError.
    """
    if not torch.is_grad_enabled():  # a Function is told of gradients that its inputs could take, wanted or not
        states, weight = states.detach(), weight.detach()
    return _Sum.apply(read, states, weight, *tables)


class _Parts(torch.autograd.Function):
    """in_parts: unlike checkpoints, which make a gradient of the head for each part, it adds up in one."""

    @staticmethod
    def forward(ctx: Any, read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        """Read all parts."""
        ctx.read = read
        ctx.save_for_backward(states, weight, *tables)
        parts = [
            read(scores[span], *(table[rows][span] for table in tables))
            for rows, scores in _blocks(states, weight.float())
            for span in row_spans(scores)
        ]
        joined = tuple(torch.cat(pieces) for pieces in zip(*parts))
        ctx.mark_non_differentiable(*(piece for piece in joined if not piece.is_floating_point()))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Read each part again for the gradient of its scores."""
        states, weight, *tables = ctx.saved_tensors
        gradients = _Gradients(ctx.needs_input_grad[1:3], states, weight)
        for rows, scores in _blocks(states, gradients.wide):
            for span in row_spans(scores):
                leaf = scores[span].detach().requires_grad_()
                with torch.enable_grad():
                    made = ctx.read(leaf, *(table[rows][span] for table in tables))
                pairs = [(piece, grad[rows][span]) for piece, grad in zip(made, grads) if piece.requires_grad]
                pieces, pulls = zip(*pairs)
                scores[span] = torch.autograd.grad(pieces, leaf, pulls)[0]
            gradients.add(rows, scores)
        return (None, *gradients.handed_out(), *(None for _ in tables))


class _Sum(torch.autograd.Function):
    """sum_in_parts: the upstream gradient is one number, so that all else is known in the forward pass."""

    @staticmethod
    def forward(ctx: Any, read: Read, states: Tensor, weight: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """Read all parts and take their gradients."""
        gradients, made = _Gradients(ctx.needs_input_grad[1:3], states, weight), []
        for rows, scores in _blocks(states, gradients.wide):
            for span in row_spans(scores):
                made.append(_read_over(read, scores[span], [t[rows][span] for t in tables], gradients.wanted))
            gradients.add(rows, scores)
        ctx.sums, ctx.dtypes, ctx.num_tables = gradients.sums, gradients.dtypes, len(tables)
        if not made:
            return states.new_zeros((), dtype=torch.float32), torch.zeros((), dtype=torch.long, device=states.device)
        total, count = (torch.stack(parts).sum() for parts in zip(*made))
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Scale what the forward pass found, in place."""
        if ctx.sums is None:
            raise RuntimeError("sum_in_parts: its gradient was handed out already; run the forward pass again")
        scaled, ctx.sums = [None if s is None else s.mul_(grad) for s in ctx.sums], None
        return (None, *_cast(scaled, ctx.dtypes), *(None for _ in range(ctx.num_tables)))


def _blocks(states: Tensor, wide: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield ROWS positions at a time and their scores [R, V], to be written over."""
    for start in range(0, len(states), ROWS):
        rows = slice(start, start + ROWS)
        yield rows, full_scores(states[rows], wide)


def _read_over(read: Read, scores: Tensor, tables: list[Tensor], wanted: bool) -> tuple[Tensor, Tensor]:
    """Read a part's sum and count; where a gradient is wanted it takes the place of the scores."""
    leaf = scores.detach().requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        total, count = read(leaf, *tables)
    if wanted:
        scores.copy_(torch.autograd.grad(total, leaf)[0]) if total.requires_grad else scores.zero_()
    return total.detach(), count


class _PairScores(torch.autograd.Function):
    """pair_scores: gathers the head's rows, again in backward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Compute the scores."""
        ctx.save_for_backward(states, weight, ids)
        scores = torch.empty(ids.shape, dtype=torch.float32, device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            for rows in _gathers(ids, weight):
                scores[rows] = (weight[ids[rows]].float() @ states[rows].float()[:, :, None]).squeeze(-1)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gather the head's rows again for the states' gradient, and add up the head's in float32."""
        states, weight, ids = ctx.saved_tensors
        to_states, to_weight = sums = _sums(ctx.needs_input_grad, states, weight)
        with torch.autocast(states.device.type, enabled=False):
            for rows in _gathers(ids, weight):
                if to_states is not None:
                    to_states[rows] = (grad[rows][:, None] @ weight[ids[rows]].float()).squeeze(1)
                if to_weight is not None:
                    pushed = grad[rows][:, :, None] * states[rows].float()[:, None]
                    to_weight.index_add_(0, ids[rows].flatten(), pushed.flatten(0, 1))
        return (*_cast(sums, (states.dtype, weight.dtype)), None)


def _gathers(ids: Tensor, weight: Tensor) -> list[slice]:
    size = max(1, GATHERED // max(1, ids.shape[1] * weight.shape[1]))
    return [slice(start, start + size) for start in range(0, len(ids), size)]


class _Gradients:
    """Adds up the gradients of states [P, H] and weight [V, H], of those that need one, from those of scores."""

    def __init__(self, needed: Sequence[bool], states: Tensor, weight: Tensor):
        self.states, self.wide, self.dtypes = states, weight.float(), (states.dtype, weight.dtype)
        self.sums, self.wanted = _sums(needed, states, weight), any(needed)

    def add(self, rows: slice, pull: Tensor) -> None:
        """Add what the gradient [R, V] of the scores at `rows` pulls."""
        to_states, to_weight = self.sums
        with torch.autocast(pull.device.type, enabled=False):
            if to_states is not None:
                to_states[rows] = pull @ self.wide
            if to_weight is not None:
                torch.addmm(to_weight, pull.T, self.states[rows].float(), out=to_weight)

    def handed_out(self) -> list[Tensor | None]:
        """Return both gradients in their owners' dtypes."""
        return _cast(self.sums, self.dtypes)


def _sums(needed: Sequence[bool], *of: Tensor) -> list[Tensor | None]:
    """Make a float32 sum for the gradient of each tensor that needs one."""
    return [torch.zeros(t.shape, dtype=torch.float32, device=t.device) if n else None for n, t in zip(needed, of)]


def _cast(sums: Sequence[Tensor | None], dtypes: Sequence[torch.dtype]) -> list[Tensor | None]:
    return [None if s is None else s.to(dtype) for s, dtype in zip(sums, dtypes)]
