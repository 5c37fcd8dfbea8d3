"""Tables in Markdown and for a terminal, and numbers as text. What is not known is a dash."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_NUMBER = re.compile(r"[-+*~<]*\d|-?$")  # the beginning of a number, or a cell without value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table. Columns of numbers are right-aligned, except the first.

    Args:
        header: C column titles.
        rows: Rows of C cells.

    Returns:
        The table, without a final newline.
    """
    numbers = [all(_NUMBER.match(row[column]) for row in rows) for column in range(1, len(header))]
    lines = [list(header), ["---", *("---:" if number else "---" for number in numbers)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def format_number(value: float | None, digits: int = 2, sign: str = "") -> str:
    """Format a number with a fixed number of decimals.

    Args:
        value: The number, or None.
        digits: Number of decimals.
        sign: "+" to show the sign of positive numbers.

    Returns:
        The text, "-" for None and for numbers that are not finite.
    """
    return "-" if value is None or not math.isfinite(value) else f"{value:{sign}.{digits}f}"


def format_interval(pair: Sequence[float] | None, sign: str = "") -> str:
    """Format a confidence interval to follow a number, such as " [9.38, 16.59]".

    Args:
        pair: (low, high), or None.
        sign: "+" to show the sign of positive numbers.

    Returns:
        The text with a leading space, empty for None.
    """
    return "" if pair is None else f" [{format_number(pair[0], sign=sign)}, {format_number(pair[1], sign=sign)}]"


def aligned(lines: Sequence[Sequence[str]], num_names: int) -> list[str]:
    """Pad the cells of a table for a terminal.

    Args:
        lines: Lines of C cells, also the header.
        num_names: Number of columns of names. They are left-aligned, the others right-aligned. Of the others, empty
            columns vanish.

    Returns:
        The lines.
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = []
    for line in lines:
        names = [cell.ljust(width) for cell, width in zip(line[:num_names], widths)]
        cells = [cell.rjust(width) for cell, width in zip(line[num_names:], widths[num_names:]) if width]
        texts.append("  ".join(names + cells).rstrip())
    return texts
