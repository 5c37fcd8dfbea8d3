"""Views on next-token distributions: dense logits, a hidden state with its head, and what came over a wire."""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.distributions import chunked_head
from arkasr.distributions.chunked_head import Read
from arkasr.distributions.logits import best_tokens, log_norm


class DenseView:
    """Distributions held as logits [P, V] on the device. Ids in `blocked` (bool [V]) have probability 0."""

    def __init__(self, logits: Tensor, blocked: Tensor | None = None):
        logits = logits.float()
        self.logits = logits if blocked is None else logits.masked_fill(blocked, -torch.inf)
        self.log_norm = log_norm(self.logits)
        self.vocab_size = logits.shape[-1]

    def __len__(self) -> int:
        """Count the positions P."""
        return len(self.logits)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        ids, values = best_tokens(self.logits, k)
        return ids, values - self.log_norm

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.logits.gather(-1, ids) - self.log_norm

    def logprobs_and_rest(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [P, U] of ids [P, U], and [P, 1] that of all tokens but the valid ones among them.

        The latter is a sum over those tokens, exact where 1 less the others' sum would be rounding; -inf for none.
        """
        size = self.vocab_size
        left_out = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
        left_out = left_out.scatter_(-1, ids.where(valid, size), True)[:, :size]
        rest = self.logits.masked_fill(left_out, -torch.inf).logsumexp(-1, keepdim=True) - self.log_norm
        return self.logprobs_at(ids), rest

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
        start, size = int(rows[0]) if len(rows) else 0, len(rows)
        if start + size <= len(self) and torch.equal(rows, torch.arange(start, start + size, device=rows.device)):
            rows = slice(start, start + size)  # as where both models read the same ids: no copy of [P, V]
        else:
            rows = rows.to(self.logits.device)
        view = object.__new__(DenseView)
        view.logits, view.log_norm, view.vocab_size = self.logits[rows], self.log_norm[rows], self.vocab_size
        return view


class HeadView:
    """Distributions held as hidden states [P, H] and the head's weight [V, H]; logits are formed only where asked.

    `scores_at` takes dot products with the head's rows of the support, so that a loss over at most 2k tokens a position
    never forms [P, V] logits, in neither direction. What needs the whole vocabulary forms the logits of some positions
    at a time. Numbers are float32 in weights of any dtype, under autocast too.
    """

    def __init__(self, states: Tensor, weight: Tensor, blocked: Tensor):
        self.states, self.weight, self.blocked = states, weight, blocked
        self.vocab_size = weight.shape[0]

    def __len__(self) -> int:
        """Count the positions P."""
        return len(self.states)

    def dense(self) -> DenseView:
        """Form the logits of all V tokens at all positions at one time."""
        return DenseView(chunked_head.full_scores(self.states, self.weight), self.blocked)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        return self.in_parts(lambda view: view.topk(k))

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.in_parts(lambda view, ids: (view.logprobs_at(ids),), ids)[0]

    def logprobs_and_rest(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities [P, U] of ids [P, U], and [P, 1] that of all tokens but the valid ones among them."""
        return self.in_parts(lambda view, *tables: view.logprobs_and_rest(*tables), ids, valid)

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return logits [P, U] of ids [P, U] in float32."""
        return chunked_head.pair_scores(self.states, self.weight, ids).masked_fill(self.blocked[ids], -torch.inf)

    def entropy(self) -> Tensor:
        """Return entropies [P] in nats."""
        return self.in_parts(lambda view: (view.entropy(),))[0]

    def at(self, rows: Tensor) -> HeadView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        return HeadView(self.states[rows.to(self.states.device)], self.weight, self.blocked)

    def in_parts(self, read: Read, *tables: Tensor) -> tuple[Tensor, ...]:
        """Join what read(view, *rows of tables) makes of some positions at a time, the dense view of those positions.

        tables: [P, ...]. read returns tensors with a row a position, and is called again in backward, so it must depend
        on its arguments alone; no gradient flows into the tables.
        """
        return chunked_head.in_parts(self._reading(read), self.states, self.weight, *tables)

    def sum_in_parts(self, read: Read, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """Add up the sum and the count that read(view, *rows of tables) makes of some positions at a time.

        As in_parts, but logits are formed once: the gradient is found on the way, and backward may be run once.
        """
        return chunked_head.sum_in_parts(self._reading(read), self.states, self.weight, *tables)

    def _reading(self, read: Read) -> Read:
        return lambda scores, *tables: read(DenseView(scores, self.blocked), *tables)
