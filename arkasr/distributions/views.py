"""Two views on next-token distributions with gradient: dense logits, and hidden states with their head.

The view of a distribution that is only partly known is in `sparse_view`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arkasr.distributions import chunked_head
from arkasr.distributions.chunked_head import Read
from arkasr.distributions.logits import best_tokens, log_norm
from arkasr.utils.devices import to_device


class DenseView:
    """Distributions held as logits of the whole vocabulary.

    It implements `arkasr.StudentView`.

    Args:
        logits: Tensor [P, V], any floating dtype. The view converts them to float32.
        blocked: Tensor [V], bool, tokens whose probability is set to 0. None blocks no token.
    """

    def __init__(self, logits: Tensor, blocked: Tensor | None = None):
        logits = logits.float()
        self.logits = logits if blocked is None else logits.masked_fill(blocked, -torch.inf)
        self.log_norm = log_norm(self.logits)
        self.vocab_size = logits.shape[-1]

    def __len__(self) -> int:
        """Return the number of positions P."""
        return len(self.logits)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """See `arkasr.DistributionView.topk`. At most V tokens are returned."""
        ids, values = best_tokens(self.logits, k)
        return ids, values - self.log_norm

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.DistributionView.logprobs_at`."""
        return self.logits.gather(-1, ids) - self.log_norm

    def logprobs_and_rest(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of selected tokens and the log-probability of all remaining tokens.

        The second is a sum over the remaining tokens. It is exact where 1 minus the selected probabilities would be
        rounding error.

        Args:
            ids: Tensor [P, U], int64, token ids.
            valid: Tensor [P, U], bool, the ids that do not count as remaining tokens.

        Returns:
            Tensors [P, U] and [P, 1], float32, log-probabilities in nats. The second is `-inf` if no token remains.
        """
        size = self.vocab_size
        left_out = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
        left_out = left_out.scatter_(-1, ids.where(valid, size), True)[:, :size]
        rest = self.logits.masked_fill(left_out, -torch.inf).logsumexp(-1, keepdim=True) - self.log_norm
        return self.logprobs_at(ids), rest

    def logprobs(self) -> Tensor:
        """Return the log-probabilities of all tokens, float32 [P, V]."""
        return self.logits - self.log_norm

    def scores_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.StudentView.scores_at`. The scores are the logits."""
        return self.logits.gather(-1, ids)

    def entropy(self) -> Tensor:
        """See `arkasr.DistributionView.entropy`."""
        logprobs = self.logits - self.log_norm
        return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)

    def at(self, rows: Tensor) -> DenseView:
        """Return the view of some positions. Consecutive rows are not copied if `rows` is on the host.

        Args:
            rows: Tensor [Q], int64, positions of this view.

        Returns:
            A view of Q positions.
        """
        index = _span(rows, len(self)) or to_device(rows, self.logits.device)
        view = object.__new__(DenseView)
        view.logits, view.log_norm, view.vocab_size = self.logits[index], self.log_norm[index], self.vocab_size
        return view


class HeadView:
    """Distributions held as hidden states and the output head. Logits are computed only where they are needed.

    It implements `arkasr.StudentView`. `scores_at` computes only the logits of the requested tokens. A loss over at
    most 2k tokens per position therefore never allocates logits [P, V], neither forwards nor backwards. Methods that
    need the whole vocabulary compute the logits of a few positions at a time. All results are float32 for any dtype of
    the weights, under autocast too.

    Args:
        states: Tensor [P, H], any floating dtype, hidden states.
        weight: Tensor [V, H], any floating dtype, the output head.
        blocked: Tensor [V], bool, tokens whose probability is set to 0.
    """

    def __init__(self, states: Tensor, weight: Tensor, blocked: Tensor):
        self.states, self.weight, self.blocked = states, weight, blocked
        self.vocab_size = weight.shape[0]

    def __len__(self) -> int:
        """Return the number of positions P."""
        return len(self.states)

    def dense(self) -> DenseView:
        """Return a view of the logits of all V tokens at all P positions."""
        return DenseView(chunked_head.full_scores(self.states, self.weight), self.blocked)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """See `arkasr.DistributionView.topk`. At most V tokens are returned."""
        ids, logprobs = self.in_parts(lambda view: view.topk(k))
        return ids, logprobs

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.DistributionView.logprobs_at`."""
        return self.in_parts(lambda view, ids: (view.logprobs_at(ids),), ids)[0]

    def logprobs_and_rest(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """See `DenseView.logprobs_and_rest`."""
        logprobs, rest = self.in_parts(lambda view, *tables: view.logprobs_and_rest(*tables), ids, valid)
        return logprobs, rest

    def scores_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.StudentView.scores_at`. The scores are the logits in float32."""
        return chunked_head.pair_scores(self.states, self.weight, ids).masked_fill(self.blocked[ids], -torch.inf)

    def entropy(self) -> Tensor:
        """See `arkasr.DistributionView.entropy`."""
        return self.in_parts(lambda view: (view.entropy(),))[0]

    def at(self, rows: Tensor) -> HeadView:
        """See `arkasr.DistributionView.at`."""
        return HeadView(self.states[to_device(rows, self.states.device)], self.weight, self.blocked)

    def in_parts(self, read: Read, *tables: Tensor) -> tuple[Tensor, ...]:
        """Call `read` on the dense view of a few positions at a time and concatenate the results.

        Args:
            read: Function of (`DenseView` of R positions, *rows of the tables). It returns tensors with one row per
                position. It is called again in the backward pass, so its result must depend on its arguments only.
            *tables: Tensors [P, ...], further arguments of `read`. They receive no gradient.

        Returns:
            The outputs of `read` for all P positions, with gradient to states and weight.
        """
        return chunked_head.in_parts(self._with_view(read), self.states, self.weight, *tables)

    def sum_in_parts(self, read: Read, *tables: Tensor) -> tuple[Tensor, Tensor]:
        """Call `read` on the dense view of a few positions at a time and add up its sums and counts.

        The logits are computed only once, and the backward pass can run only once. See `chunked_head.sum_in_parts`.

        Args:
            read: Function of (`DenseView` of R positions, *rows of the tables). It returns a sum (float32 scalar) and
                a count (int64 scalar).
            *tables: Tensors [P, ...], further arguments of `read`. They receive no gradient.

        Returns:
            The total (float32 scalar, with gradient to states and weight) and the total count (int64 scalar).
        """
        return chunked_head.sum_in_parts(self._with_view(read), self.states, self.weight, *tables)

    def _with_view(self, read: Read) -> Read:
        return lambda scores, *tables: read(DenseView(scores, self.blocked), *tables)


def _span(rows: Tensor, num_positions: int) -> slice | None:
    """Return consecutive rows as a slice, or None. Both models reading the same ids is the usual case.

    Rows on a GPU are not read, because the host would have to wait for them.
    """
    if rows.is_cuda:
        return None
    numbers = rows.tolist()
    span = range(numbers[0], numbers[0] + len(numbers)) if numbers else range(0)
    return slice(span.start, span.stop) if span.stop <= num_positions and numbers == list(span) else None
