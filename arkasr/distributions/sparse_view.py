"""A view on distributions of which only some tokens are known, such as the answer of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from arkasr.errors import UserError
from arkasr.utils.devices import to_device

if TYPE_CHECKING:
    from torch import Tensor

Exact = Callable[["Tensor", "Tensor"], "Tensor"]


class SparseView:
    """Distributions at P positions of which at most K tokens each are known.

    Without `exact` the view answers `-inf` for tokens that it does not hold. With it, each `logprobs_at` calls `exact`
    at most once, for all positions together. The answers are kept and shared with all views made by `at`.

    Args:
        ids: Tensor [P, K], int64, the known tokens in any order. Rows with fewer than K tokens are padded with -1.
        logprobs: Tensor [P, K], float32, their log-probabilities in nats, `-inf` where padded.
        vocab_size: Vocabulary size V, greater than every id.
        exact: Function of (rows, ids) that returns further log-probabilities. It gets `rows`, int64 [R], distinct
            positions of the view, and `ids`, int64 [R, U], padded with -1, both on the CPU. It returns float32 [R, U].
    """

    def __init__(self, ids: Tensor, logprobs: Tensor, vocab_size: int, exact: Exact | None = None):
        self.vocab_size = vocab_size
        self._known = _Known(ids, logprobs, exact)
        self._rows = torch.arange(len(ids), device=ids.device)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the best known tokens.

        Args:
            k: Number of tokens per position. With k >= V the view returns the tokens that every row was created with.

        Returns:
            Ids (int64) and log-probabilities (float32), both [P, k], best first.

        Raises:
            UserError: If k is less than V and greater than the number of tokens that some row was created with.
        """
        return self._known.best(self._rows, k, k >= self.vocab_size)

    def logprobs_at(self, ids: Tensor) -> Tensor:
        """Return the log-probabilities of selected tokens.

        Args:
            ids: Tensor [P, U], int64, token ids.

        Returns:
            Tensor [P, U], float32. It is `-inf` for ids that are unknown or outside 0 to V - 1.
        """
        values, found = self._known.read(self._rows, ids)
        wanted = ~found & (ids >= 0) & (ids < self.vocab_size)
        if self._known.exact is None or not bool(wanted.any()):
            return values
        self._known.fetch(self._rows, ids.where(wanted, -1))
        return self._known.read(self._rows, ids)[0]

    def entropy(self) -> None:
        """Return None, because the rows do not hold whole distributions."""

    def at(self, rows: Tensor) -> SparseView:
        """Return the view of some positions. See `arkasr.DistributionView.at`.

        Args:
            rows: Tensor [Q], int64, positions of this view. They may repeat.

        Returns:
            A view of Q positions that shares its known tokens with this one.
        """
        view = object.__new__(SparseView)
        view.vocab_size, view._known = self.vocab_size, self._known
        view._rows = self._rows[to_device(rows, self._rows.device)]
        return view


class _Known:
    """The storage shared by a view and its parts: the best tokens of each row, and a table that grows.

    Attributes:
        exact: See `SparseView`.
        best_ids: Tensor [P, K], int64, the tokens that each row was created with, best first.
        best_logprobs: Tensor [P, K], float32, their log-probabilities.
        width: Number of tokens that every row was created with.
        ids: Tensor [P, W], int64, all known tokens. Each row ascends and starts with at least one -1.
        logprobs: Tensor [P, W], float32, their log-probabilities, `-inf` at each -1.
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
                f"the teacher's view holds only {self.width} tokens per position, but the top {k} are needed; lower "
                f"`distill.top_k` to {self.width}, or raise `teacher.options.top_k` if the teacher runs on a server"
            )
        k = min(k, self.width)
        return self.best_ids[rows, :k], self.best_logprobs[rows, :k]

    def read(self, rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities [Q, U] of ids [Q, U] in rows [Q], and which of them are known."""
        table = self.ids[rows]
        places = torch.searchsorted(table, ids.contiguous()).clamp(max=table.shape[-1] - 1)
        found = table.gather(-1, places) == ids
        return self.logprobs[rows].gather(-1, places).masked_fill(~found, -torch.inf), found

    def fetch(self, rows: Tensor, ids: Tensor) -> None:
        """Request the values of ids [Q, U] in rows [Q] with `exact`. Ids of -1 are skipped. Rows may repeat."""
        assert self.exact is not None
        wanted: dict[int, set[int]] = {}
        for row, row_ids in zip(rows.tolist(), ids.tolist()):
            wanted.setdefault(row, set()).update(row_ids)
        lists = {row: sorted(row_ids - {-1}) for row, row_ids in wanted.items() if row_ids - {-1}}
        asked = torch.tensor(sorted(lists))
        table = pad_sequence([torch.tensor(lists[row]) for row in asked.tolist()], batch_first=True, padding_value=-1)
        values = self.exact(asked, table).float().masked_fill(table < 0, -torch.inf)
        device, shape = self.ids.device, (len(self.ids), table.shape[-1])
        new_ids = torch.full(shape, -1, device=device)
        new_logprobs = torch.full(shape, -torch.inf, device=device)
        new_ids[asked.to(device)], new_logprobs[asked.to(device)] = table.to(device), values.to(device)
        self.ids, order = torch.cat([self.ids, new_ids], dim=-1).sort(-1)
        self.logprobs = torch.cat([self.logprobs, new_logprobs], dim=-1).gather(-1, order)
