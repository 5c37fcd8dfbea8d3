"""The alignment of a hypothesis with its reference, as pieces of text that are marked by what happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from arkasr.scoring.alignment import Edit, align


@dataclass(frozen=True)
class Piece:
    """One substituted token, or successive tokens to which the same happened.

    Attributes:
        kind: `equal`, `substitute`, `delete` or `insert`.
        reference: What is in the reference, empty for an insertion.
        hypothesis: What was recognised, empty for a deletion.
    """

    kind: str
    reference: str
    hypothesis: str


def pieces(reference: str, hypothesis: str, metric: str) -> list[Piece]:
    """Align a hypothesis with its reference, and join successive tokens that are equal, missing or added.

    Args:
        reference: Normalised reference.
        hypothesis: Normalised hypothesis.
        metric: `wer`, `cer` or `mer`.

    Returns:
        The pieces in order. Tokens in a piece are separated as in the text: by spaces, except between characters.
    """
    edits = align(reference, hypothesis, metric)
    # A substitution stays alone, because both of its tokens are shown one above the other.
    groups = groupby(enumerate(edits), key=lambda pair: pair[0] if pair[1].kind == "substitute" else pair[1].kind)
    return [_piece([edit for _, edit in group], metric) for _, group in groups]


def _piece(edits: Sequence[Edit], metric: str) -> Piece:
    before, after = [edit.reference for edit in edits], [edit.hypothesis for edit in edits]
    return Piece(edits[0].kind, joined(before, metric), joined(after, metric))


def joined(tokens: Sequence[str], metric: str) -> str:
    """Join tokens to a text.

    Args:
        tokens: Tokens of one text. Empty ones are left out.
        metric: `wer`, `cer` or `mer`.

    Returns:
        The text. Words have spaces between them, characters have none. With `mer`, there is a space where one of two
        neighbours is longer than a character.
    """
    text, last = "", ""
    for token in filter(None, tokens):
        close = metric == "cer" or (metric == "mer" and len(last) == len(token) == 1)
        text += token if close or not last else f" {token}"
        last = token
    return text
