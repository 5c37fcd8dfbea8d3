"""The trie of hotwords with its back-off: an Aho-Corasick automaton over tokens (Aho and Corasick, CACM 1975).

Each token of a hotword earns a bonus when it is decoded. The bonus of an unfinished hotword is a loan: the token that
leaves the hotword pays it back. So a text gains the bonus of the hotwords that it holds, and nothing else. For example,
with weight 2 and the hotword " NEW YORK", of the tokens " NEW" and " YORK":

| text | bonus per token | sum |
|---|---|---|
| " NEW YORK IS" | 2, 2, 0 | 4 |
| " NEW IDEAS" | 2, -2 | 0 |
| " NEW YORKER", with " YORK" and "ER" | 2, 2, -4 | 0 |

A state is the longest suffix of the text that begins a hotword, as in every such automaton. Where nothing matches,
there are two states: at the edge of a word, where all hotwords may begin, and inside a word, where only those may begin
whose first character ends the word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from arkasr.model.hotwords.phrases import Phrase, phrases
from arkasr.model.hotwords.words import word_edges
from arkasr.model.tokenization import token_bytes

EDGE, INSIDE = 0, 1  # the states without a match. Also the two kinds of tokens: at the edge of a word, or inside it


class Automaton:
    """States with their arcs. Lists have one entry per state, and the first two states are EDGE and INSIDE.

    Args:
        phrases: Token sequences of the hotwords.
        begins: For each of V tokens, whether it continues the word before it (see `word_edges`).
        ends: For each of V tokens, whether a word can go on after it.
        weight: Bonus per token.

    Attributes:
        starts: Next state by first token of a hotword, at the edge of a word and inside one.
        root: EDGE or INSIDE, the state that is left if the match ends here.
        arcs: Next state and bonus by token, for all tokens that keep or change a match.
        unfinished: Number of tokens whose bonus any other token pays back: one at the edge of a word, and one that
            continues a word.
        longer: For each state, the tokens of `arcs` that lengthen its match.
        depth: Number of tokens that match.
    """

    def __init__(self, phrases: Sequence[Phrase], begins: Sequence[bool], ends: Sequence[bool], weight: float):
        self.begins, self.ends, self.weight = begins, ends, weight
        self.starts: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.depth = [0, 0]
        self._children: list[dict[int, int]] = [self.starts[EDGE], {}]
        self._whole: dict[int, bool] = {}  # states that end a hotword, and whether a word character would change it
        for phrase in phrases:
            self._insert(phrase)
        size = len(self.depth)
        self.root, self._fail = [EDGE, INSIDE] + [EDGE] * (size - 2), [EDGE, INSIDE] + [EDGE] * (size - 2)
        self.arcs: list[dict[int, tuple[int, float]]] = [{} for _ in range(size)]
        self.unfinished, self._earned = [(0, 0)] * size, [(0, 0)] * size
        for parent, token, state in self._by_depth():
            self._link(parent, token, state)

    @property
    def longer(self) -> list[dict[int, int]]:
        """See the class."""
        return self._children

    def refund(self, state: int, token: int) -> float:
        """Return what a token pays back that leaves the match.

        Args:
            state: The state before it.
            token: Id of the token.

        Returns:
            The amount, at least 0.
        """
        return self.weight * self.unfinished[state][self.begins[token]]

    def next(self, state: int, token: int) -> int:
        """Return the state after a token.

        Args:
            state: The state before it.
            token: Id of the token.

        Returns:
            The state.
        """
        if token in self.arcs[state]:
            return self.arcs[state][token][0]
        outside = INSIDE if self.ends[token] else EDGE
        return self.starts[self.root[state]].get(token, outside)

    def bonus(self, state: int, token: int) -> float:
        """Return what a token earns or pays back.

        Args:
            state: The state before it.
            token: Id of the token.

        Returns:
            The amount to add to its logit.
        """
        if token in self.arcs[state]:
            return self.arcs[state][token][1]
        return self.other_bonus(state, token)

    def other_bonus(self, state: int, token: int) -> float:
        """Return what a token earns or pays back if no arc has it: it may begin a hotword.

        Args:
            state: The state before it.
            token: Id of the token.

        Returns:
            The amount to add to its logit.
        """
        first = self.weight * (token in self.starts[self.root[state]])
        return first - self.refund(state, token)

    def _insert(self, phrase: Phrase) -> None:
        state = EDGE
        for token in phrase.ids:
            if token not in self._children[state]:
                self._children[state][token] = len(self.depth)
                self.depth.append(self.depth[state] + 1)
                self._children.append({})
            state = self._children[state][token]
        self._whole[state] = phrase.closed
        if phrase.inside:
            self.starts[INSIDE][phrase.ids[0]] = self.starts[EDGE][phrase.ids[0]]

    def _by_depth(self) -> Iterator[tuple[int, int, int]]:
        """Yield parent, token and state, shorter matches first."""
        states = [EDGE]
        for parent in states:  # grows
            for token, state in self._children[parent].items():
                states.append(state)
                yield parent, token, state

    def _link(self, parent: int, token: int, state: int) -> None:
        """Add arcs and what is unfinished, from shorter matches: `fail` is the next longest suffix of the text."""
        self.root[state] = INSIDE if self.ends[token] else EDGE
        fail = self.root[state] if parent == EDGE else self.next(self._fail[parent], token)
        total, whole = self.depth[state], self._whole.get(state)
        kept = self._earned[parent][self.begins[token]]  # by a hotword that ended before this token
        ended = 0 if whole is None else total, total if whole is False else 0
        edge, inside = (max(kept, ended[kind], self._earned[fail][kind]) for kind in (EDGE, INSIDE))
        self._fail[state], self._earned[state] = fail, (edge, inside)
        self.unfinished[state] = total - edge, total - inside
        for other, (target, bonus) in self.arcs[fail].items():
            self.arcs[state][other] = target, bonus + self.refund(fail, other) - self.refund(state, other)
        self.arcs[state] |= {other: (child, self.weight) for other, child in self._children[state].items()}


def hotword_automaton(hotwords: Sequence[str], tokenizer: PreTrainedTokenizerBase, weight: float) -> Automaton:
    """Build the automaton of a list of hotwords.

    Args:
        hotwords: Words and phrases, at least one.
        tokenizer: The model's tokenizer.
        weight: Bonus per token, in units of the logits (nats).

    Returns:
        The automaton over the tokens of the tokenizer.

    Raises:
        UserError: A hotword is empty or cannot be written in the model's tokens, or the tokenizer is a slow one.
    """
    table, begins, ends = _known_tokens(tokenizer)
    return Automaton(phrases(hotwords, tokenizer, table), begins, ends, weight)


Tokens = tuple[list[bytes | None], list[bool], list[bool]]
_known: WeakKeyDictionary[PreTrainedTokenizerBase, Tokens] = WeakKeyDictionary()


def _known_tokens(tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Return the bytes and the edges of all tokens. They are kept, because large vocabularies take seconds."""
    if tokenizer not in _known or len(_known[tokenizer][0]) != len(tokenizer):
        table = token_bytes(tokenizer)
        _known[tokenizer] = table, *word_edges(table)
    return _known[tokenizer]
