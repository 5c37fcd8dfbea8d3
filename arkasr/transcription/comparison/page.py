"""How text is laid out for a terminal: its width, colours, and the columns that characters take."""

from __future__ import annotations

import os
import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from arkasr.transcription.comparison.columns import Cell, Kind

MARKS: dict[Kind, str] = {"equal": "", "substitute": "*", "insert": "+", "delete": "-", "absent": ""}
# The marks remain with colours, so that the kinds can be told apart without seeing colours.
COLOURS: dict[Kind, str] = {"substitute": "\x1b[1;33m", "insert": "\x1b[1;36m", "delete": "\x1b[1;35m"}
END = "\x1b[0m"
MOST_WIDTH = 120
LEAST_WIDTH = 40


class Page:
    """How text is laid out.

    Args:
        file: Where it will be printed.

    Attributes:
        width: Number of columns.
        has_colours: Whether colours are used: on a terminal, unless NO_COLOR is set (no-color.org).
    """

    def __init__(self, file: TextIO):
        self.width = max(LEAST_WIDTH, min(shutil.get_terminal_size((80, 24)).columns, MOST_WIDTH))
        self.has_colours = file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def wrapped(self, text: str, indent: str = "  ") -> str:
        """Break a sentence into lines.

        Args:
            text: The sentence.
            indent: Of all lines but the first.

        Returns:
            The lines.
        """
        return textwrap.fill(text, self.width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)

    def coloured(self, kind: Kind, text: str) -> str:
        """Colour a text.

        Args:
            kind: What the text is.
            text: The text.

        Returns:
            The text, with escapes if there are colours.
        """
        colour = COLOURS.get(kind, "") if self.has_colours else ""
        return f"{colour}{text}{END}" if colour else text

    def table(self, labels: Sequence[str], found: Sequence[Sequence[Cell]]) -> list[str]:
        """Print columns, as many beside each other as fit.

        Args:
            labels: Label per row.
            found: Columns of one cell per row (see `columns`).

        Returns:
            The lines, in blocks of one line per row.
        """
        margin = max(columns_wide(label) for label in labels) + 2
        lines: list[str] = []
        for block in _blocks(found, self.width - 2 - margin):
            for row, label in enumerate(labels):
                cells = [self._cell(column[row], _column_width(column)) for column in block]
                lines.append(("  " + _padded(label, margin) + " ".join(cells)).rstrip())
        return lines

    def _cell(self, cell: Cell, width: int) -> str:
        text = cell_text(cell)
        return self.coloured(cell.kind, text) + " " * (width - columns_wide(text))


def columns_wide(text: str) -> int:
    """Count the columns of a terminal that a text takes.

    Args:
        text: The text.

    Returns:
        The number: 2 per East Asian wide character, 0 per combining mark.
    """
    wide = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    return wide - sum(unicodedata.combining(char) > 0 or unicodedata.category(char) in ("Mn", "Cf") for char in text)


def cell_text(cell: Cell) -> str:
    """Return the text of a cell with its mark.

    Args:
        cell: The cell.

    Returns:
        The token behind `*` (substituted) or `+` (inserted), or `-` alone (deleted).
    """
    return MARKS[cell.kind] + cell.token


def _blocks(found: Sequence[Sequence[Cell]], room: int) -> list[list[Sequence[Cell]]]:
    """Divide columns into blocks that fit. A column that is too wide has a block of its own."""
    blocks: list[list[Sequence[Cell]]] = [[]]
    used = 0
    for column in found:
        width = _column_width(column) + 1
        if blocks[-1] and used + width > room + 1:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += width
    return blocks


def _column_width(column: Sequence[Cell]) -> int:
    return max(columns_wide(cell_text(cell)) for cell in column)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns_wide(text))
