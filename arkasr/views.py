"""Views on next-token distributions: dense logits, a hidden state with its head, and what came over a wire."""

from __future__ import annotations

import torch
from torch import Tensor


class DenseView:
    """Distributions held as logits [P, V] on the device. Ids in `blocked` (bool [V]) have probability 0."""

    def __init__(self, logits: Tensor, blocked: Tensor | None = None):
        logits = logits.float()
        self.logits = logits if blocked is None else logits.masked_fill(blocked, -torch.inf)
        self.log_norm = self.logits.logsumexp(-1, keepdim=True)
        self.vocab_size = logits.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        best = self.logits.topk(min(k, self.vocab_size))
        return best.indices, best.values - self.log_norm

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.logits.gather(-1, ids) - self.log_norm

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return logits [P, U] of ids [P, U]: log-probabilities up to one constant a position."""
        return self.logits.gather(-1, ids)

    def entropy(self) -> Tensor:
        """Return entropies [P] in nats."""
        logprobs = self.logits - self.log_norm
        return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)

    def at(self, rows: Tensor) -> DenseView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        rows, view = rows.to(self.logits.device), object.__new__(DenseView)
        view.logits, view.log_norm, view.vocab_size = self.logits[rows], self.log_norm[rows], self.vocab_size
        return view


class HeadView:
    """Distributions held as hidden states [P, H] and the head's weight [V, H]; logits are formed only where asked.

    `scores_at` gathers the head's rows of the support and takes dot products, so that a loss over at most 2k tokens a
    position never forms [P, V] logits, in neither direction.
    """

    def __init__(self, states: Tensor, weight: Tensor, blocked: Tensor):
        self.states, self.weight, self.blocked = states, weight, blocked
        self.vocab_size = weight.shape[0]

    def dense(self) -> DenseView:
        """Form the logits of all V tokens."""
        return DenseView(self.states @ self.weight.T, self.blocked)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        return self.dense().topk(k)

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]."""
        return self.dense().logprobs_at(ids)

    def scores_at(self, ids: Tensor) -> Tensor:
        """Return logits [P, U] of ids [P, U] in float32."""
        rows = torch.nn.functional.embedding(ids, self.weight)
        scores = torch.einsum("puh,ph->pu", rows.float(), self.states.float())
        return scores.masked_fill(self.blocked[ids], -torch.inf)

    def entropy(self) -> Tensor:
        """Return entropies [P] in nats."""
        return self.dense().entropy()

    def at(self, rows: Tensor) -> HeadView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        return HeadView(self.states[rows], self.weight, self.blocked)
