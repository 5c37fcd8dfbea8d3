"""The automaton of hotwords as tensors. A step reads nothing on the host and has shapes that do not depend on values.

Shapes: B rows, V vocabulary size, S states, A arcs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from arkasr.model.hotwords.automaton import EDGE, INSIDE


@dataclass(eq=False)
class HotwordTables:
    """States, arcs and bonuses. State 0 is the start of a text.

    The sizes S, A and the largest number of arcs of a state are padded to powers of two, so that lists of similar
    length have tables of the same shapes, which captured steps can share.

    Attributes:
        starts: Tensor [2, V], int64, next state at the edge of a word and inside one.
        outside: Tensor [V], int64, 0 or 1: the state after a token that matches nothing.
        parts: Tensor [4, V], float32, whose sums are the bonus of tokens without arcs: that of tokens which begin a
            hotword at the edge of a word and inside one, ones, and 1 for tokens that continue the word before them.
        continues: Tensor [V], bool, tokens that continue the word before them.
        root: Tensor [S], int64, 0 or 1: the row of `starts` that holds for other tokens than those of arcs.
        unfinished: Tensor [S, 2], int64, the number of tokens whose bonus a token pays back that leaves the match, at
            the edge of a word and inside it.
        first: Tensor [S], int64, the first arc of each state.
        number: Tensor [S], int64, the number of its arcs.
        tokens: Tensor [A], int64, token of each arc.
        targets: Tensor [A], int64, its next state.
        changes: Tensor [A], float32, its bonus, as a difference from what other tokens earn.
        longer: Tensor [A], bool, arcs that lengthen the match of their state.
        weight: Tensor [], float32, bonus per token.
        places: Tensor [largest number of arcs], int64, 0, 1, 2 and so on.
        depth: Largest number of tokens of a hotword.
    """

    starts: Tensor
    outside: Tensor
    parts: Tensor
    continues: Tensor
    root: Tensor
    unfinished: Tensor
    first: Tensor
    number: Tensor
    tokens: Tensor
    targets: Tensor
    changes: Tensor
    longer: Tensor
    weight: Tensor
    places: Tensor
    depth: int

    @property
    def shape(self) -> tuple[int, ...]:
        """S, A, the largest number of arcs, and V."""
        return len(self.root), len(self.tokens), len(self.places), len(self.continues)

    def add_bonus(self, logits: Tensor, states: Tensor, plain: Tensor | None = None) -> Tensor:
        """Add what each token earns, or subtract what it pays back, in place.

        Args:
            logits: Tensor [B, V], float32, logits or log-probabilities.
            states: Tensor [B], int64.
            plain: Tensor [B], bool, rows in which no hotword begins or goes on. Tokens only pay back. None: any may.

        Returns:
            `logits`.
        """
        edge, inside = (self.unfinished[states] * self.weight).unbind(1)
        places, valid = self._arcs(states)
        starts = torch.stack([self.root[states] == root for root in (EDGE, INSIDE)], 1)
        if plain is not None:
            starts, valid = starts & ~plain[:, None], valid & ~plain[:, None]
        logits.addmm_(torch.cat([starts, torch.stack([-edge, edge - inside], 1)], 1), self.parts)  # one pass over V
        return logits.scatter_add_(1, self.tokens[places], self.changes[places] * valid)

    def next(self, states: Tensor, chosen: Tensor, plain: Tensor | None = None) -> Tensor:
        """Return the states after a token.

        Args:
            states: Tensor [B], int64.
            chosen: Tensor [B], int64, token ids.
            plain: See `add_bonus`.

        Returns:
            Tensor [B], int64.
        """
        places, valid = self._arcs(states)
        hit = valid & (self.tokens[places] == chosen[:, None])
        target = torch.where(hit, self.targets[places], -1).amax(-1)
        found = torch.where(target < 0, self.starts[self.root[states], chosen], target)
        return found if plain is None else torch.where(plain, self.outside[chosen], found)

    def left(self, states: Tensor, chosen: Tensor, plain: Tensor | None = None) -> Tensor:
        """Count the tokens of unfinished hotwords that a token leaves behind.

        Args:
            states: Tensor [B], int64, states before the token.
            chosen: Tensor [B], int64, token ids.
            plain: See `add_bonus`.

        Returns:
            Tensor [B], int64, how many of the latest tokens before it are those of a hotword that it does not continue.
        """
        places, valid = self._arcs(states)
        goes_on = (valid & self.longer[places] & (self.tokens[places] == chosen[:, None])).any(-1)
        goes_on = goes_on if plain is None else goes_on & ~plain
        kinds = self.continues[chosen].long()[:, None]
        return self.unfinished[states].gather(1, kinds)[:, 0].masked_fill(goes_on, 0)

    def is_open(self, states: Tensor) -> Tensor:
        """Return whether the next token may leave a hotword unfinished.

        Args:
            states: Tensor [B], int64.

        Returns:
            Tensor [B], bool.
        """
        return (self.unfinished[states] > 0).any(-1)

    def _arcs(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of the arcs of each state, [B, largest number of arcs], and whether there is an arc."""
        return self.first[states][:, None] + self.places, self.places < self.number[states][:, None]

    def to(self, device: torch.device) -> HotwordTables:
        """Return the tables on a device.

        Args:
            device: The device.

        Returns:
            These tables if they are there, otherwise a copy.
        """
        if self.root.device == device:
            return self
        return HotwordTables(**{name: tensor.to(device) for name, tensor in self._tensors().items()}, depth=self.depth)

    def clone(self) -> HotwordTables:
        """Return tables with the same values in memory of their own."""
        return HotwordTables(**{name: tensor.clone() for name, tensor in self._tensors().items()}, depth=self.depth)

    def copy_(self, other: HotwordTables) -> None:
        """Take the values of tables of the same shape. The tensors keep their addresses.

        Args:
            other: The tables.
        """
        for name, tensor in self._tensors().items():
            tensor.copy_(getattr(other, name))
        self.depth = other.depth

    def _tensors(self) -> dict[str, Tensor]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "depth"}
