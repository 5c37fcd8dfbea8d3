"""The automaton of hotwords as tensors. A step reads nothing on the host and has shapes that do not depend on values.

Shapes: B rows, V vocabulary size, S states, A arcs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arkasr.model.hotwords.automaton import EDGE, INSIDE, Automaton, hotword_automaton

DEFAULT_WEIGHT = 1.0
MOST_TABLES = 16  # lists of hotwords that are kept per tokenizer
LEAST_STATES, LEAST_ARCS = 256, 16  # of padded tables

Key = tuple[tuple[str, ...], float, int, torch.device]
_kept: WeakKeyDictionary[PreTrainedTokenizerBase, OrderedDict[Key, HotwordTables]] = WeakKeyDictionary()


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


def hotword_tables(
    hotwords: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    vocab_size: int,
    weight: float = DEFAULT_WEIGHT,
    device: torch.device | str = "cpu",
) -> HotwordTables:
    """Return the tables of a list of hotwords. The latest lists are kept.

    Args:
        hotwords: Words and phrases, at least one.
        tokenizer: The model's tokenizer.
        vocab_size: Rows of the model's output head V.
        weight: Bonus per token, in units of the logits (nats).
        device: Where the tables are.

    Returns:
        The tables.

    Raises:
        UserError: See `hotword_automaton`.
    """
    kept, key = _kept.setdefault(tokenizer, OrderedDict()), (tuple(hotwords), weight, vocab_size, torch.device(device))
    if key not in kept:
        kept[key] = to_tables(hotword_automaton(hotwords, tokenizer, weight), vocab_size).to(key[-1])
    kept.move_to_end(key)
    while len(kept) > MOST_TABLES:
        kept.popitem(last=False)
    return kept[key]


def to_tables(automaton: Automaton, vocab_size: int) -> HotwordTables:
    """Convert an automaton to tensors.

    Args:
        automaton: The automaton.
        vocab_size: V. Ids beyond the tokenizer match nothing.

    Returns:
        The tables, on the CPU.
    """
    outside = _filled([INSIDE if inside else EDGE for inside in automaton.ends], vocab_size, torch.long)
    continues = _filled(automaton.begins, vocab_size, torch.bool)
    starts, start_bonus = outside.repeat(2, 1), torch.zeros(2, vocab_size)
    for root in (EDGE, INSIDE):
        first = torch.tensor(list(automaton.starts[root]), dtype=torch.long)
        starts[root, first] = torch.tensor(list(automaton.starts[root].values()), dtype=torch.long)
        start_bonus[root, first] = automaton.weight
    counts = [len(arcs) for arcs in automaton.arcs]
    rows = [
        (token, target, bonus - automaton.other_bonus(state, token), token in automaton.longer[state])
        for state, arcs in enumerate(automaton.arcs)
        for token, (target, bonus) in arcs.items()
    ]
    tokens, targets, changes, longer = zip(*rows) if rows else ((), (), (), ())
    states, most = _padded(len(counts), LEAST_STATES), _padded(max(counts), LEAST_ARCS)
    size = _padded(len(rows) + most, LEAST_STATES)  # `first` of any state plus `places` is below it
    number = torch.tensor(counts)
    return HotwordTables(
        starts=starts,
        outside=outside,
        parts=torch.stack([*start_bonus, torch.ones(vocab_size), continues.float()]),
        continues=continues,
        root=_filled(automaton.root, states, torch.long),
        unfinished=_filled(automaton.unfinished, states, torch.long),
        first=_filled(number.cumsum(0) - number, states, torch.long),
        number=_filled(number, states, torch.long),
        tokens=_filled(tokens, size, torch.long),
        targets=_filled(targets, size, torch.long),
        changes=_filled(changes, size, torch.float32),
        longer=_filled(longer, size, torch.bool),
        weight=torch.tensor(automaton.weight),
        places=torch.arange(most),
        depth=max(automaton.depth),
    )


def _padded(number: int, least: int) -> int:
    return max(least, 1 << (number - 1).bit_length())


def _filled(values: Sequence | Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return the values, followed by zeros."""
    known = torch.as_tensor(values, dtype=dtype)
    return torch.cat([known, known.new_zeros(size - len(known), *known.shape[1:])])
