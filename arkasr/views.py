"""Views on next-token distributions: dense logits, a hidden state with its head, and what came over a wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from arkasr.logits import best_tokens, log_norm

ROWS = 64  # positions whose [ROWS, V] logits exist at one time
GATHERED = 2**21  # elements of the head that are gathered at one time: 8 MiB in float32

Read = Callable[..., tuple[Tensor, ...]]


class DenseView:
    """Distributions held as logits [P, V] on the device. Ids in `blocked` (bool [V]) have probability 0."""

    def __init__(self, logits: Tensor, blocked: Tensor | None = None):
        logits = logits.float()
        self.logits = logits if blocked is None else logits.masked_fill(blocked, -torch.inf)
        self.log_norm = log_norm(self.logits)
        self.vocab_size = logits.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        ids, values = best_tokens(self.logits, k)
        return ids, values - self.log_norm

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.logits.gather(-1, ids) - self.log_norm

    def logprobs(self) -> Tensor:
        """Return log-probabilities [P, V] of all ids."""
        return self.logits - self.log_norm

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return logits [P, U] of ids [P, U]: log-probabilities up to one constant a position."""
        return self.logits.gather(-1, ids)

    def entropy(self) -> Tensor:
        """Return entropies [P] in nats."""
        logprobs = self.logits - self.log_norm
        return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)

    def at(self, rows: Tensor) -> DenseView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        if torch.equal(rows, torch.arange(len(self.logits), device=rows.device)):
            return self  # all of them, as where both models read the same ids: no copy of [P, V]
        rows, view = rows.to(self.logits.device), object.__new__(DenseView)
        view.logits, view.log_norm, view.vocab_size = self.logits[rows], self.log_norm[rows], self.vocab_size
        return view


class HeadView:
    """Distributions held as hidden states [P, H] and the head's weight [V, H]; logits are formed only where asked.

    `scores_at` takes dot products with the head's rows of the support, so that a loss over at most 2k tokens a position
    never forms [P, V] logits, in neither direction. What needs the whole vocabulary forms the logits of ROWS positions
    at a time and, for the gradient, forms them again. Numbers are float32 in weights of any dtype, under autocast too.
    """

    def __init__(self, states: Tensor, weight: Tensor, blocked: Tensor):
        self.states, self.weight, self.blocked = states, weight, blocked
        self.vocab_size = weight.shape[0]

    def dense(self) -> DenseView:
        """Form the logits of all V tokens at all positions at one time."""
        return self._dense(self.states)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        return self.in_parts(lambda view: view.topk(k))

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.in_parts(lambda view, ids: (view.logprobs_at(ids),), ids)[0]

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return logits [P, U] of ids [P, U] in float32."""
        return _PairScores.apply(self.states, self.weight, ids).masked_fill(self.blocked[ids], -torch.inf)

    def entropy(self) -> Tensor:
        """Return entropies [P] in nats."""
        return self.in_parts(lambda view: (view.entropy(),))[0]

    def at(self, rows: Tensor) -> HeadView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        return HeadView(self.states[rows.to(self.states.device)], self.weight, self.blocked)

    def _dense(self, states: Tensor) -> DenseView:
        return DenseView(_logits(states, self.weight), self.blocked)

    def in_parts(self, read: Read, *tables: Tensor) -> tuple[Tensor, ...]:
        """Join what read(view, *rows of tables) makes of ROWS positions at a time, the dense view of those positions.

        tables: [P, ...]. read returns tensors with a row a position, and is called again in backward, so it must depend
        on its arguments alone; no gradient flows into the tables.
        """
        if len(self.states) <= ROWS:
            return read(self._dense(self.states), *tables)
        return _Parts.apply(read, self.states, self.weight, self.blocked, *tables)


def _logits(states: Tensor, weight: Tensor) -> Tensor:
    with torch.autocast(states.device.type, enabled=False):
        return states.float() @ weight.float().T


class _Parts(torch.autograd.Function):
    """HeadView.in_parts: unlike checkpoints, which make a gradient of the head for each part, it adds up in one."""

    @staticmethod
    def forward(
        ctx: Any, read: Read, states: Tensor, weight: Tensor, blocked: Tensor, *tables: Tensor
    ) -> tuple[Tensor, ...]:
        """Read all parts."""
        ctx.read = read
        ctx.save_for_backward(states, weight, blocked, *tables)
        split = zip(*(table.split(ROWS) for table in (states, *tables)))
        wide = weight.float()  # once, not a part
        parts = [read(DenseView(_logits(part, wide), blocked), *some) for part, *some in split]
        joined = tuple(torch.cat(pieces) for pieces in zip(*parts))
        ctx.mark_non_differentiable(*(piece for piece in joined if not piece.is_floating_point()))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Read each part again for the gradient of its logits."""
        states, weight, blocked, *tables = ctx.saved_tensors
        to_states, to_weight = _sums(ctx.needs_input_grad[1:3], states, weight)
        wide = weight.float()
        for start in range(0, len(states), ROWS):
            rows = slice(start, start + ROWS)
            logits = _logits(states[rows], wide).requires_grad_()
            with torch.enable_grad():
                made = ctx.read(DenseView(logits, blocked), *(table[rows] for table in tables))
            pairs = [(piece, grad[rows]) for piece, grad in zip(made, grads) if piece.requires_grad]
            pieces, pulls = zip(*pairs)
            (pull,) = torch.autograd.grad(pieces, logits, pulls)
            with torch.autocast(states.device.type, enabled=False):
                if to_states is not None:
                    to_states[rows] = pull @ wide
                if to_weight is not None:
                    to_weight.addmm_(pull.T, states[rows].float())
        return (None, _cast(to_states, states), _cast(to_weight, weight), None, *(None for _ in tables))


class _PairScores(torch.autograd.Function):
    """Dot products of states [P, H] with rows `ids` [P, U] of weight [V, H]: float32 [P, U]."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Compute the scores."""
        ctx.save_for_backward(states, weight, ids)
        scores = torch.empty(ids.shape, dtype=torch.float32, device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            for rows in _spans(ids, weight):
                scores[rows] = (weight[ids[rows]].float() @ states[rows].float()[:, :, None]).squeeze(-1)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gather the head's rows again for the states' gradient, and add up the head's in float32."""
        states, weight, ids = ctx.saved_tensors
        to_states, to_weight = _sums(ctx.needs_input_grad, states, weight)
        with torch.autocast(states.device.type, enabled=False):
            for rows in _spans(ids, weight):
                if to_states is not None:
                    to_states[rows] = (grad[rows][:, None] @ weight[ids[rows]].float()).squeeze(1)
                if to_weight is not None:
                    pushed = grad[rows][:, :, None] * states[rows].float()[:, None]
                    to_weight.index_add_(0, ids[rows].flatten(), pushed.flatten(0, 1))
        return _cast(to_states, states), _cast(to_weight, weight), None


def _sums(needed: Sequence[bool], *of: Tensor) -> list[Tensor | None]:
    """Make a float32 sum for the gradient of each tensor that needs one."""
    return [torch.zeros(t.shape, dtype=torch.float32, device=t.device) if n else None for t, n in zip(of, needed)]


def _cast(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(like.dtype)


def _spans(ids: Tensor, weight: Tensor) -> list[slice]:
    size = max(1, GATHERED // max(1, ids.shape[1] * weight.shape[1]))
    return [slice(start, start + size) for start in range(0, len(ids), size)]
