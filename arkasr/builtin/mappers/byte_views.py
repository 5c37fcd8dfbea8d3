"""The teacher's distributions rewritten over student tokens: the arithmetic of `byte_offsets`."""

from __future__ import annotations

import torch
from torch import Tensor

import arkasr
from arkasr.builtin.mappers.byte_alignment import ByteAlignment

FLOOR = 1e-12  # probability of student tokens that the teacher rules out. Losses then treat them as known
LEAST_MASS = 1e-6  # minimum mass of teacher tokens that agree with the pending bytes
LEAST_LOGPROB = -1e4  # lower bound of a teacher token's log-probability, which keeps sums along the path finite
ROWS = 128  # teacher rows copied at one time


class SpelledView:
    """Probabilities of the student's tokens. It implements `arkasr.DistributionView`.

    The probabilities of a row add up to at most 1. Two kinds of rows hold no distribution: rows of zeros (unknown), and
    rows of NaN (the teacher gave no valid answer).

    Args:
        logprobs: Tensor [P, V], float32, log-probabilities.
        dropped: Tensor [P], float32, the teacher's probability mass that maps to no student token. It is 1 if the
            position holds no distribution.
    """

    def __init__(self, logprobs: Tensor, dropped: Tensor):
        self.logprobs, self.dropped, self.vocab_size = logprobs, dropped, logprobs.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """See `arkasr.DistributionView.topk`. At most V tokens are returned."""
        best = self.logprobs.topk(min(k, self.vocab_size))
        return best.indices, best.values

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """See `arkasr.DistributionView.logprobs_at`. It is `-inf` for ids beyond the student's tokenizer too."""
        inside = ids < self.vocab_size
        return self.logprobs.gather(-1, ids.where(inside, 0)).masked_fill(~inside, -torch.inf)

    def entropy(self) -> None:
        """Return None, because rows need not hold the whole distribution."""

    def at(self, rows: Tensor) -> SpelledView:
        """See `arkasr.DistributionView.at`."""
        rows = moved(rows, self.logprobs.device)
        return SpelledView(self.logprobs[rows], self.dropped[rows])


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device. From the host to a GPU, the host does not wait for the copy.

    Args:
        values: Tensor on the host or on the device.
        device: The device.

    Returns:
        The values on the device.
    """
    values = values.pin_memory() if device.type == "cuda" and not values.is_cuda else values
    return values.to(device, non_blocking=True)


def all_logprobs(view: arkasr.DistributionView, positions: int, top_k: int) -> Tensor:
    """Return the log-probabilities of all teacher tokens.

    Args:
        view: Teacher's view.
        positions: Number of positions P of the view.
        top_k: Number of tokens per position to read from a view that does not hold whole distributions.

    Returns:
        Tensor [P, V]. It is `-inf` for tokens that were not read.
    """
    if isinstance(view, arkasr.DenseView):
        return view.logprobs()
    if view.entropy() is not None:
        ids = torch.arange(view.vocab_size).expand(positions, -1)
        return view.logprobs_at(ids.to(view.topk(1)[0].device))
    ids, values = view.topk(min(top_k, view.vocab_size))
    return torch.full((positions, view.vocab_size), -torch.inf, device=ids.device).scatter(1, ids, values)


def spelled_view(log_mass: Tensor, probs: Tensor, used: Tensor, mapped: Tensor, min_mapped_mass: float) -> SpelledView:
    """Build the view, and exclude positions of which too little is known.

    Args:
        log_mass: Tensor [P], float64, log mass of the teacher tokens that agree with the pending bytes. NaN if the
            teacher gave no valid distribution.
        probs: Tensor [P, V], float32, probabilities of student tokens.
        used: Tensor [P], float32, share of the agreeing mass from which `probs` was computed, 0 to 1.
        mapped: Tensor [V], bool, student tokens to which teacher tokens can map.
        min_mapped_mass: Minimum mass that maps to student tokens at a position that is not excluded.

    Returns:
        The view. Excluded rows are zeros, or NaN where `log_mass` is NaN.
    """
    mapped_mass = probs.sum(-1) * used
    known = (log_mass >= torch.tensor(LEAST_MASS, dtype=log_mass.dtype).log()) & (mapped_mass >= min_mapped_mass)
    unknown = torch.where(log_mass.isnan(), torch.nan, 0.0).float()
    rows = torch.where(known[:, None], probs.clamp(min=FLOOR) * mapped, unknown[:, None])
    return SpelledView(rows.log(), torch.where(known, 1 - mapped_mass, 1.0).clamp(0, 1))


class ByteMass:
    """Computes the probability mass of each student token at the P aligned positions of one batch.

    The path is the sequence of teacher tokens that the teacher read. A route has a weight: the inverse probability of
    the path from the route's row to the position's own row. Weights and masses are float64 logarithms.

    A teacher row is invalid if it holds NaN or +inf, or has no mass. Positions that depend on an invalid row get NaN.

    Args:
        logprobs: Tensor [T, V_T], the teacher's log-probabilities.
        alignment: The alignment of the batch.
        first_tokens: Tensor [V_T], int64, the student token that begins each teacher token, or -1.
        size: Number of student tokens.
    """

    def __init__(self, logprobs: Tensor, alignment: ByteAlignment, first_tokens: Tensor, size: int):
        self.device, self.size = logprobs.device, size
        self.known = moved((first_tokens >= 0).nonzero()[:, 0], self.device)
        self.first_tokens = moved(first_tokens, self.device)
        self.logprobs, self.rows = logprobs, moved(alignment.teacher_rows, self.device)
        self.positions = alignment.positions[: len(self.rows)]
        path = self._ids([i for ids in alignment.teacher_ids for i in ids])
        steps = logprobs.gather(1, path[:, None])[:, 0].double().clamp(min=LEAST_LOGPROB)
        invalid = ~logprobs.amax(-1).isfinite()
        # log-probability of the path, and number of invalid rows, before each row
        self.path_before = torch.cat([steps.new_zeros(1), steps.masked_fill(invalid, 0.0).cumsum(0)])
        self.invalid_before = torch.cat([path.new_zeros(1), invalid.cumsum(0)])
        self.whole_rows = self._ids([p for p, position in enumerate(self.positions) if position.uses_whole_row])

    def _ids(self, values: list[int]) -> Tensor:
        return moved(torch.tensor(values, dtype=torch.long), self.device)

    def _probs_of(self, rows: Tensor, lists: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the probabilities [N] of the tokens in each list at the list's row, and the list of each [N]."""
        sizes = torch.tensor([len(ids) for ids in lists], dtype=torch.long)
        owner = moved(torch.arange(len(lists)).repeat_interleave(sizes), self.device)
        ids = moved(torch.cat([*lists, torch.zeros(0, dtype=torch.long)]), self.device)
        return self.logprobs[rows[owner], ids].exp(), owner

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the distributions over student tokens.

        Returns:
            Tensor [P], float64, the log mass of teacher tokens that agree with the pending bytes. Tensor [P, size],
            float32, the probabilities of the student tokens. Tensor [P], float32, the share of the mass that they were
            computed from. The rest belongs to ignored tokens, see `ContinuationTable`.
        """
        routes = [(p, *route) for p, position in enumerate(self.positions) for route in position.routes]
        place = self._ids([p for p, _, _ in routes])
        rows = self.rows[place] - self._ids([rows_back for _, rows_back, _ in routes])
        found, owner = self._probs_of(rows, [table.teacher for _, _, table in routes])
        mass = self._sums(found, owner, len(routes))
        weight = self.path_before[rows] - self.path_before[self.rows[place]]
        shares = torch.cat([weight + mass.log(), mass.new_zeros(len(self.whole_rows))])
        total = _logsumexp(shares, torch.cat([place, self.whole_rows]), len(self.rows))
        total = total.masked_fill(self._needs_invalid_row(), torch.nan)
        factor = (weight - total[place]).exp().masked_fill(mass == 0, 0.0).float()
        probs = torch.zeros(len(self.rows), self.size, device=self.device)
        student = torch.cat([*(table.student for _, _, table in routes), torch.zeros(0, dtype=torch.long)])
        self._add(probs, place[owner], moved(student, self.device), factor[owner] * found)
        self._add_whole_rows(probs, (-total).exp().float())
        self._move_chains(probs, total)
        ignored = self._sums(*self._probs_of(rows, [table.ignored for _, _, table in routes]), len(routes))
        unused = _logsumexp(weight + ignored.log(), place, len(self.rows)) - total
        return total, probs.clamp_(min=0), (1 / (1 + unused.exp())).float()

    def _sums(self, values: Tensor, owner: Tensor, count: int) -> Tensor:
        """Return the sum [count], float64, of the values of each owner."""
        return torch.zeros(count, dtype=torch.double, device=self.device).index_add_(0, owner, values.double())

    def _needs_invalid_row(self) -> Tensor:
        """Return bool [P]: whether a row from the first route's to the chain's last is invalid."""
        back = [max((route.rows_back for route in position.routes), default=0) for position in self.positions]
        steps = [position.chain.steps if position.chain else 0 for position in self.positions]
        first, last = self.rows - self._ids(back), self.rows + self._ids(steps)
        return self.invalid_before[last + 1] > self.invalid_before[first]

    def _add(self, probs: Tensor, places: Tensor, ids: Tensor, amounts: Tensor) -> None:
        """Add amounts to probabilities. Ids of -1 add 0. To leave them out, the host would wait for their number."""
        known = ids >= 0
        probs.view(-1).index_add_(0, places * self.size + ids.where(known, 0), amounts.masked_fill(~known, 0.0))

    def _add_whole_rows(self, probs: Tensor, factor: Tensor) -> None:
        """Add all tokens of the teacher's row at positions where the whole row counts."""
        ids = self.known
        for places in self.whole_rows.split(ROWS):
            rows = self.logprobs[self.rows[places]][:, ids].exp()
            summed = torch.zeros(len(places), self.size, device=self.device)
            summed.index_add_(1, self.first_tokens[ids], rows)
            probs[places] += factor[places, None] * summed

    def _move_chains(self, probs: Tensor, total: Tensor) -> None:
        """Move the chained probability of each visited token to it from the token that begins its first part."""
        chains = [(p, position.chain) for p, position in enumerate(self.positions) if position.chain]
        places = self._ids([p for p, _ in chains])
        start = self.rows[places]
        end = start + self._ids([chain.steps for _, chain in chains])
        found, owner = self._probs_of(end, [chain.ending for _, chain in chains])
        last = self._sums(found, owner, len(chains))
        amounts = (self.path_before[end] - self.path_before[start] - total[places]).exp() * last
        amounts = amounts.float()
        self._add(probs, places, self._ids([chain.visited for _, chain in chains]), amounts)
        self._add(probs, places, self._ids([chain.first for _, chain in chains]), -amounts)


def _logsumexp(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return the logsumexp of the values of each of `count` owners, -inf for an owner without values."""
    top = values.new_full((count,), -torch.inf).scatter_reduce(0, owner, values, "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    return torch.zeros_like(top).index_add_(0, owner, (values - top[owner]).exp()).log() + top
