"""Texts of several models in columns: token by token beside the text that they are aligned with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from arkasr.scoring.alignment import Edit

Kind = Literal["equal", "substitute", "delete", "insert", "absent"]


class Cell(NamedTuple):
    """What a text holds at one place.

    Attributes:
        kind: How it differs from the first row. `absent`: neither holds a token here, but another row does.
        token: The token, empty for `delete` and `absent`.
    """

    kind: Kind
    token: str


def columns(alignments: Sequence[Sequence[Edit]]) -> list[list[Cell]]:
    """Put the alignments of R texts with the same first text side by side.

    Args:
        alignments: R alignments (see `arkasr.scoring.alignment.align`), whose reference tokens are the same.

    Returns:
        Columns of 1 + R cells, the first one that of the first text. Tokens that are inserted at the same place share
        columns.
    """
    slots = [_slots(edits) for edits in alignments]
    found = []
    for place, own in enumerate(zip(*slots, strict=True)):
        for number in range(max(len(inserted) for inserted, _ in own)):
            cells = [inserted[number] if number < len(inserted) else Cell("absent", "") for inserted, _ in own]
            found.append([Cell("absent", ""), *cells])
        if place < len(slots[0]) - 1:
            edits = [edit for _, edit in own if edit is not None]
            found.append([Cell("equal", edits[0].reference), *(Cell(edit.kind, edit.hypothesis) for edit in edits)])
    return found


def _slots(edits: Sequence[Edit]) -> list[tuple[list[Cell], Edit | None]]:
    """Return the insertions before each token of the first text, with its edit, and those at the end."""
    slots: list[tuple[list[Cell], Edit | None]] = []
    inserted: list[Cell] = []
    for edit in edits:
        if edit.kind == "insert":
            inserted.append(Cell("insert", edit.hypothesis))
        else:
            slots.append((inserted, edit))
            inserted = []
    return [*slots, (inserted, None)]
