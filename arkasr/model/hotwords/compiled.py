"""Lists of hotwords, compiled to tables. The latest ones are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from arkasr.model.hotwords.automaton import EDGE, INSIDE, Automaton, hotword_automaton
from arkasr.model.hotwords.tables import HotwordTables

DEFAULT_WEIGHT = 1.0
MOST_TABLES = 16  # lists of hotwords that are kept per tokenizer
LEAST_STATES, LEAST_ARCS = 256, 16  # of padded tables

Key = tuple[tuple[str, ...], float, int, torch.device]
_kept: WeakKeyDictionary[PreTrainedTokenizerBase, OrderedDict[Key, HotwordTables]] = WeakKeyDictionary()


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
