"""Hotwords by their definition: plain searches in token sequences, without an automaton."""

from __future__ import annotations

from arkasr.model.hotwords.automaton import Automaton
from arkasr.model.hotwords.phrases import Phrase


def may_start(phrase: Phrase, ids, ends, start: int) -> bool:
    """Return whether a hotword may begin at a place of a text."""
    return phrase.inside or start == 0 or not ends[ids[start - 1]]


def reference_match(phrases, ids, ends) -> tuple[int, ...]:
    """Return the longest end of a text that begins a hotword."""
    for start in range(len(ids)):
        suffix = tuple(ids[start:])
        if any(p.ids[: len(suffix)] == suffix and may_start(p, ids, ends, start) for p in phrases):
            return suffix
    return ()


def reference_occurrences(phrases, ids, begins, ends) -> list[tuple[int, Phrase]]:
    """Return start and hotword of all whole hotwords in a text."""
    found = []
    for start in range(len(ids)):
        for phrase in phrases:
            end = start + len(phrase.ids)
            whole = end >= len(ids) or not phrase.closed or not begins[ids[end]]
            if tuple(ids[start:end]) == phrase.ids and whole and may_start(phrase, ids, ends, start):
                found.append((start, phrase))
    return found


def bonuses(automaton: Automaton, ids) -> list[float]:
    """Return the bonus of each token of a text."""
    state, found = 0, []
    for token in ids:
        found.append(automaton.bonus(state, token))
        state = automaton.next(state, token)
    return found
