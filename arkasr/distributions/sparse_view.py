"""A view on distributions of which only some tokens are known: what came over a wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from arkasr.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Exact = Callable[["Tensor", "Tensor"], "Tensor"]


class SparseView:
    """Distributions at P positions of which at most K tokens each are known.

    ids: int64 [P, K], logprobs: float32 [P, K], in any order; a row that knows fewer is filled up with -1 and -inf.
    vocab_size: V, above every id. exact: asked for log-probabilities of ids that are not held, as exact(rows, ids) with
    int64 [R] of distinct positions among the P and int64 [R, U], -1 where nothing is asked, both on the CPU; it returns
    float32 [R, U]. It is asked once a call of `logprobs_at`, for all positions together, and what it says is kept, also
    for views that `at` made of this one. Without it the view answers -inf for what it does not hold.
    """

    def __init__(self, ids: Tensor, logprobs: Tensor, vocab_size: int, exact: Exact | None = None):
        self.vocab_size = vocab_size
        self._known = _Known(ids, logprobs, exact)
        self._rows = torch.arange(len(ids), device=ids.device)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return ids [P, k] and log-probabilities [P, k], best first; k >= V: what every row was given at first.

        Raises UserError for a smaller k that is above what was given.
        """
        return self._known.best(self._rows, k, k >= self.vocab_size)

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return log-probabilities [P, U] of ids [P, U]; -inf for ids that are not known, or outside 0 to V - 1."""
        values, found = self._known.read(self._rows, ids)
        wanted = ~found & (ids >= 0) & (ids < self.vocab_size)
        if self._known.exact is None or not bool(wanted.any()):
            return values
        self._known.learn(self._rows, ids.where(wanted, -1))
        return self._known.read(self._rows, ids)[0]

    def entropy(self) -> None:
        """Return None: the rows do not hold whole distributions."""

    def at(self, rows: Tensor) -> SparseView:
        """Return the view of positions `rows` (int64 [Q]) only."""
        view = object.__new__(SparseView)
        view.vocab_size, view._known, view._rows = self.vocab_size, self._known, self._rows[rows.to(self._rows.device)]
        return view


class _Known:
    """What a view and those made of it hold: the rows as they were given, best first, and a table that grows.

    ids: int64 [P, W], ascending in each row after at least one -1; logprobs: float32 [P, W], -inf at each -1.
    """

    def __init__(self, ids: Tensor, logprobs: Tensor, exact: Exact | None):
        self.exact = exact
        logprobs = logprobs.float().masked_fill(ids < 0, -torch.inf)
        self.best_logprobs, order = logprobs.sort(dim=-1, descending=True, stable=True)
        self.best_ids = ids.gather(-1, order)
        self.width = int((ids >= 0).sum(-1).min()) if len(ids) else ids.shape[-1]
        self.ids, order = pad(ids, (1, 0), value=-1).sort(-1)
        self.logprobs = pad(logprobs, (1, 0), value=-torch.inf).gather(-1, order)

    def best(self, rows: Tensor, k: int, everything: bool) -> tuple[Tensor, Tensor]:
        """Return the best tokens [Q, k] of rows [Q], and their log-probabilities."""
        if k > self.width and not everything:
            raise UserError(
                f"the {k} best tokens of a position are asked for, but the teacher's view knows only {self.width}; "
                "have it know more (teacher.options.top_k where a server answers), or compare fewer (distill.top_k)"
            )
        k = min(k, self.width)
        return self.best_ids[rows, :k], self.best_logprobs[rows, :k]

    def read(self, rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities [Q, U] of ids [Q, U] in rows [Q], and which are held."""
        table = self.ids[rows]
        places = torch.searchsorted(table, ids.contiguous()).clamp(max=table.shape[-1] - 1)
        found = table.gather(-1, places) == ids
        return self.logprobs[rows].gather(-1, places).masked_fill(~found, -torch.inf), found

    def learn(self, rows: Tensor, ids: Tensor) -> None:
        """Ask for the exact values of ids [Q, U], -1 where nothing is asked, in rows [Q], which may repeat."""
        wanted: dict[int, set[int]] = {}
        for row, some in zip(rows.tolist(), ids.tolist()):
            wanted.setdefault(row, set()).update(some)
        lists = {row: sorted(some - {-1}) for row, some in wanted.items() if some - {-1}}
        asked = torch.tensor(sorted(lists))
        table = pad_sequence([torch.tensor(lists[row]) for row in asked.tolist()], batch_first=True, padding_value=-1)
        values = self.exact(asked, table).float().masked_fill(table < 0, -torch.inf)
        device, shape = self.ids.device, (len(self.ids), table.shape[-1])
        more_ids = torch.full(shape, -1, device=device)
        more = torch.full(shape, -torch.inf, device=device)
        more_ids[asked.to(device)], more[asked.to(device)] = table.to(device), values.to(device)
        self.ids, order = torch.cat([self.ids, more_ids], dim=-1).sort(-1)
        self.logprobs = torch.cat([self.logprobs, more], dim=-1).gather(-1, order)
