"""What report.html is built of: text, tables, charts and utterances. The Markdown of RESULTS.md becomes such blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from arkasr.reporting.page.looks import Look

_SPANS = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*")
_CELL_END = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_ITEM = "- "
_TOGETHER = re.compile(r"\[[-+.\d]+, [-+.\d]+\]|\(\d+\.\d %\)|\d %")  # parts of cells
_RULE = re.compile(r"\|[\s|:-]+\|")  # the second line of a Markdown table


@dataclass(frozen=True)
class Span:
    """A piece of a line: plain text, or text of kind `code` or `strong`."""

    text: str
    kind: str = ""


Line = Sequence[Span]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    kind: ClassVar[str] = "paragraph"
    line: Line


@dataclass(frozen=True)
class Items:
    """A list of lines."""

    kind: ClassVar[str] = "items"
    lines: Sequence[Line]


@dataclass(frozen=True)
class Code:
    """Commands, shown as they are."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Table:
    """A table. Each row has one cell per column. `numbers` says which columns are right-aligned."""

    kind: ClassVar[str] = "table"
    header: Sequence[Line]
    rows: Sequence[Sequence[Line]]
    numbers: Sequence[bool]


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with one legend of the looks of runs."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Any]
    legend: Sequence[Look] = ()


@dataclass(frozen=True)
class Cards:
    """Utterances of one test set, in groups (see `utterances.CardGroup`)."""

    kind: ClassVar[str] = "cards"
    groups: Sequence[Any]


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown on request, and in print."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Any]
    is_open: bool = False


@dataclass
class Section:
    """A section of the page. `level` is 2, or 3 inside the section before it."""

    title: str
    level: int = 2
    blocks: list[Any] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Name of the section in addresses."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def spans(text: str) -> list[Span]:
    """Split a line of Markdown into plain text, code and strong text.

    Args:
        text: The line.

    Returns:
        Its spans. Other Markdown is plain text.
    """
    found, end = [], 0
    for match in _SPANS.finditer(text):
        found += [Span(text[end : match.start()])] if match.start() > end else []
        found.append(Span(match[1], "code") if match[1] else Span(match[2], "strong"))
        end = match.end()
    return [*found, *([Span(text[end:])] if text[end:] else [])]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in _CELL_END.split(line.strip())[1:-1]]


def _unbroken(text: str) -> str:
    """Keep intervals and percentages of a cell on one line."""
    return _TOGETHER.sub(lambda match: match[0].replace(" ", "\u00a0"), text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool] | None = None) -> Table:
    """Make a table of texts.

    Args:
        header: C column titles.
        rows: Rows of C cells.
        numbers: Whether each column is right-aligned. None: all but the first one.

    Returns:
        The table.
    """
    right = numbers if numbers is not None else [column > 0 for column in range(len(header))]
    cells = [[spans(_unbroken(cell)) for cell in row] for row in rows]
    return Table([spans(cell) for cell in header], cells, right)


def _parts(markdown: str) -> Iterator[str]:
    """Split at empty lines, except in code."""
    for index, piece in enumerate(_CODE.split(markdown)):
        yield from [piece] if index % 2 else re.split(r"\n{2,}", piece.strip())


def blocks(markdown: str) -> Iterator[Any]:
    """Read the Markdown that RESULTS.md is written in: paragraphs, lists, tables, headings and code.

    Args:
        markdown: Parts of RESULTS.md.

    Yields:
        Blocks. Markup of other kinds is shown as text.
    """
    for part in _parts(markdown):
        lines = part.split("\n")
        if len(lines) > 1 and lines[0].startswith("|") and _RULE.fullmatch(lines[1].strip()):
            right = [cell.endswith(":") for cell in _cells(lines[1])]
            yield table(_cells(lines[0]), [_cells(line) for line in lines[2:]], right)
        elif part.startswith("```"):
            yield Code("\n".join(lines[1:-1]))
        elif part.startswith("#"):
            yield Heading(part.lstrip("# "))
        elif part.startswith(_ITEM):
            yield Items([spans(item.replace("\n", " ")) for item in re.split(r"(?:^|\n)- ", part)[1:]])
        elif part:
            yield Paragraph(spans(" ".join(part.split())))
