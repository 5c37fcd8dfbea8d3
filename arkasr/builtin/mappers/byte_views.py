"""The teacher's distributions over bytes, told in the student's tokens: the arithmetic of `byte_offsets`."""

from __future__ import annotations

import torch
from torch import Tensor

import arkasr

FLOOR = 1e-12  # of tokens that the teacher rules out, so that losses take them as known
LEAST_MASS = 1e-6  # of what the teacher expected, on its going on from the partial bytes
LEAST_LOGPROB = -1e4  # of a token on the path, so that sums over it stay finite
ROWS = 128  # rows copied at a time


class SpelledView:
    """Probabilities [P, V] of the student's tokens, each row with at most 1 in sum; a row of zeros is not known, one of
    NaN was not answered by the teacher.

    dropped: float32 [P], the teacher's mass that no student token tells; 1 where the position is not known.
    """

    def __init__(self, logprobs: Tensor, dropped: Tensor):
        self.logprobs, self.dropped, self.vocab_size = logprobs, dropped, logprobs.shape[-1]

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first."""
        best = self.logprobs.topk(min(k, self.vocab_size))
        return best.indices, best.values

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]; `-inf` for ids past the student's tokenizer too."""
        inside = ids < self.vocab_size
        return self.logprobs.gather(-1, ids.where(inside, 0)).masked_fill(~inside, -torch.inf)

    def entropy(self) -> None:
        """Return None: rows need not hold the whole distribution."""

    def at(self, rows: Tensor) -> SpelledView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        rows = rows.to(self.logprobs.device)
        return SpelledView(self.logprobs[rows], self.dropped[rows])


def whole(view: arkasr.DistributionView, positions: int, top_k: int) -> Tensor:
    """Return log-probabilities [P, V] of a view; where it does not hold them all, its `top_k` best, else `-inf`."""
    if isinstance(view, arkasr.DenseView):
        return view.logprobs()
    if view.entropy() is not None:
        ids = torch.arange(view.vocab_size).expand(positions, -1)
        return view.logprobs_at(ids.to(view.topk(1)[0].device))
    ids, values = view.topk(min(top_k, view.vocab_size))
    return torch.full((positions, view.vocab_size), -torch.inf, device=ids.device).scatter(1, ids, values)


def spelled_view(mass: Tensor, told: Tensor, allowed: Tensor, least_told: float) -> SpelledView:
    """Make the view of probabilities `told` [P, V], given the log mass [P] of what was read; allowed: bool [V].

    Where the mass is NaN the teacher gave no distribution, and the row is NaN.
    """
    share = told.sum(-1)
    known = (mass >= torch.tensor(LEAST_MASS, dtype=mass.dtype).log()) & (share >= least_told)
    unknown = torch.where(mass.isnan(), torch.nan, 0.0).float()
    shown = torch.where(known[:, None], told.clamp(min=FLOOR) * allowed, unknown[:, None])
    return SpelledView(shown.log(), torch.where(known, 1 - share, 1.0).clamp(0, 1))


class Telling:
    """One batch: P positions, the C ways in which teacher tokens cross them, and the path through the teacher's rows.

    A way starts at a teacher row and lists tokens that agree with what was read since. `log_of[C]` is its weight: how
    much likelier it is to get there than to the position's own row. Weights and masses are float64 logarithms.
    A teacher's row with a NaN, with +inf or without any mass is a hole: the mass of positions that depend on it is NaN.
    """

    def __init__(self, logprobs: Tensor, alignment: arkasr.Alignment, firsts: Tensor, size: int):
        self.device, self.size, self.firsts = logprobs.device, size, firsts.to(logprobs.device)
        self.logprobs, self.rows = logprobs, alignment.teacher_rows.to(self.device)
        self.places = alignment.places[: len(self.rows)]
        path = self._ids([i for ids in alignment.teacher_ids for i in ids])
        steps = logprobs.gather(1, path[:, None])[:, 0].double().clamp(min=LEAST_LOGPROB)
        holes = ~logprobs.amax(-1).isfinite()
        self.before = torch.cat([steps.new_zeros(1), steps.masked_fill(holes, 0.0).cumsum(0)])
        self.holes = torch.cat([path.new_zeros(1), holes.cumsum(0)])
        self.bare = self._ids([p for p, place in enumerate(self.places) if place.bare])

    def _ids(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long).to(self.device)

    def _at(self, rows: Tensor, lists: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the probabilities [N] of the tokens that N lists name at their rows, and which list each is of."""
        sizes = torch.tensor([len(ids) for ids in lists], dtype=torch.long)
        owner = torch.arange(len(lists)).repeat_interleave(sizes).to(self.device)
        ids = torch.cat([*lists, torch.zeros(0, dtype=torch.long)]).to(self.device)
        return self.logprobs[rows[owner], ids].exp(), owner

    def told(self) -> tuple[Tensor, Tensor]:
        """Return the log mass [P] of what was read and the probabilities [P, size] of the student's tokens."""
        ways = [(p, *way) for p, place in enumerate(self.places) for way in place.ways]
        place = self._ids([p for p, _, _ in ways])
        rows = self.rows[place] - self._ids([back for _, back, _ in ways])
        found, owner = self._at(rows, [table.teacher for _, _, table in ways])
        mass = torch.zeros(len(ways), dtype=torch.double, device=self.device).index_add_(0, owner, found.double())
        weight = self.before[rows] - self.before[self.rows[place]]
        shares = torch.cat([weight + mass.log(), mass.new_zeros(len(self.bare))])
        total = _logsumexp(shares, torch.cat([place, self.bare]), len(self.rows)).masked_fill(self._lost(), torch.nan)
        factor = (weight - total[place]).exp().masked_fill(mass == 0, 0.0).float()
        told = torch.zeros(len(self.rows), self.size, device=self.device)
        students = torch.cat([*(table.student for _, _, table in ways), torch.zeros(0, dtype=torch.long)])
        self._add(told, place[owner], students.to(self.device), factor[owner] * found)
        self._add_bare(told, (-total).exp().float())
        self._move_chains(told, total)
        return total, told.clamp_(min=0)

    def _lost(self) -> Tensor:
        """Tell, bool [P], which positions depend on a hole: one between their first way's row and their chain's last."""
        first = self.rows - self._ids([max((back for back, _ in place.ways), default=0) for place in self.places])
        last = self.rows + self._ids([place.chain.steps if place.chain else 0 for place in self.places])
        return self.holes[last + 1] > self.holes[first]

    def _add(self, told: Tensor, places: Tensor, ids: Tensor, amounts: Tensor) -> None:
        known = ids >= 0
        told.view(-1).index_add_(0, (places * self.size + ids)[known], amounts[known])

    def _add_bare(self, told: Tensor, factor: Tensor) -> None:
        """Tell the teacher's whole rows where the position is at a border of its tokens."""
        ids = (self.firsts >= 0).nonzero()[:, 0]
        for places in self.bare.split(ROWS):
            rows = self.logprobs[self.rows[places]][:, ids].exp()
            summed = torch.zeros(len(places), self.size, device=self.device).index_add_(1, self.firsts[ids], rows)
            told[places] += factor[places, None] * summed

    def _move_chains(self, told: Tensor, total: Tensor) -> None:
        """Give a visited token that several teacher tokens spell its chained probability, from its beginning's mass."""
        chains = [(p, place.chain) for p, place in enumerate(self.places) if place.chain]
        places = self._ids([p for p, _ in chains])
        start = self.rows[places]
        end = start + self._ids([chain.steps for _, chain in chains])
        found, owner = self._at(end, [chain.ending for _, chain in chains])
        last = torch.zeros(len(chains), dtype=torch.double, device=self.device).index_add_(0, owner, found.double())
        amounts = (self.before[end] - self.before[start] - total[places]).exp() * last
        amounts = amounts.float()
        self._add(told, places, self._ids([chain.visited for _, chain in chains]), amounts)
        self._add(told, places, self._ids([chain.first for _, chain in chains]), -amounts)


def _logsumexp(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return logsumexp of the values of each of `count` owners; -inf where there are none."""
    top = values.new_full((count,), -torch.inf).scatter_reduce(0, owner, values, "amax")
    top = top.masked_fill(top == -torch.inf, 0.0)
    return torch.zeros_like(top).index_add_(0, owner, (values - top[owner]).exp()).log() + top
