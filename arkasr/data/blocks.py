"""Manifest files as blocks of lines that can be read in any order, so that an epoch is shuffled without loading it.

A block of an uncompressed file has `BLOCK_LINES` lines. A compressed file can only be read from the start of a gzip
member, so its blocks are its members. `write_cuts` writes a member per `BLOCK_LINES` lines. Other programs write one
member per file. Such a file is one block, whose clips are shuffled only among `data.buffer_clips` neighbours.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lhotse.cut import Cut

BLOCK_LINES = 64
GZIP = b"\x1f\x8b"  # first bytes of compressed data
_FORMAT, _CHUNK = 31, 2**20  # window bits that select the gzip format, bytes read at once


class Block(NamedTuple):
    """Consecutive lines of a file.

    Attributes:
        offset: Position in the file, in bytes.
        first: Number of the first line, from 0.
        lines: Number of lines, None up to the end of the file.
    """

    offset: int = 0
    first: int = 0
    lines: int | None = None


WHOLE = Block()


class FileBlocks(Sequence[tuple[Path, Block]]):
    """The blocks of files, file after file, in 16 bytes each.

    Args:
        files: The files. Each is read once. If a file cannot be decompressed to its end, its last block begins before
            the damage, so reading this block raises the error. A file without a line has one block.
    """

    def __init__(self, files: Sequence[Path]):
        self._files, self._indices = files, [_Index(file) for file in files]
        self._ends = list(accumulate(map(len, self._indices)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> tuple[Path, Block]:  # type: ignore[override]  # slices are not needed
        if not 0 <= number < len(self):
            raise IndexError(number)
        file = bisect_right(self._ends, number)
        return self._files[file], self._indices[file].block(number - self._ends[file] + len(self._indices[file]))

    def longer_than(self, lines: int) -> Path | None:
        """Find a file with a block of more lines than a limit.

        Args:
            lines: The limit, in lines.

        Returns:
            The first such file, or None if there is none.
        """
        return next((file for file, index in zip(self._files, self._indices) if index.longest() > lines), None)


class _Index:
    """Offsets and first lines of the blocks of one file, and a last pair for its end."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            compressed = file.read(len(GZIP)) == GZIP
        pairs = list(_members(path) if compressed else _line_starts(path))
        pairs = pairs if len(pairs) > 1 else [(0, 0), *pairs]
        self._offsets, self._lines = array("q", [offset for offset, _ in pairs]), array("q", [n for _, n in pairs])

    def __len__(self) -> int:
        return len(self._lines) - 1

    def block(self, number: int) -> Block:
        first, last = self._lines[number], number + 1 == len(self)
        return Block(self._offsets[number], first, None if last else self._lines[number + 1] - first)

    def longest(self) -> int:
        return max(after - before for before, after in pairwise(self._lines))


def _line_starts(path: Path) -> Iterator[tuple[int, int]]:
    """Yield the offset of every block of a text file and the number of its first line, then the same of its end."""
    offset = number = 0
    with path.open("rb") as file:
        for number, text in enumerate(file):
            if number % BLOCK_LINES == 0:
                yield offset, number
            offset += len(text)
    yield offset, number + 1


def _members(path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and line number of every gzip member whose first line starts in it, then of the end."""
    lines, last, offset = 0, b"\n", 0
    with path.open("rb") as file, suppress(zlib.error):
        data = file.read(_CHUNK)
        while data.strip(b"\0"):  # zeros may follow the last member
            if last == b"\n":
                yield offset, lines
            inflate = zlib.decompressobj(_FORMAT)
            while data and not inflate.eof:
                text = inflate.decompress(data)
                lines, last = lines + text.count(b"\n"), text[-1:] or last
                offset += len(data) - len(inflate.unused_data)
                data = inflate.unused_data or file.read(_CHUNK)
    yield offset, lines


def write_cuts(path: Path, cuts: Iterable[Cut]) -> None:
    """Write a `.jsonl.gz` manifest in blocks. Equal cuts give equal bytes.

    Args:
        path: The file.
        cuts: The cuts, in the order of the file.
    """
    write_lines(path, (json.dumps(cut.to_dict(), ensure_ascii=False) for cut in cuts))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of text in blocks, one gzip member per `BLOCK_LINES` lines.

    Args:
        path: The file.
        lines: The lines without line ends, such as cuts in JSON.
    """
    rest = iter(lines)
    with path.open("wb") as file:
        while group := list(islice(rest, BLOCK_LINES)):
            # names of files that are not UTF-8 hold surrogates, which become escapes of JSON
            data = "".join(f"{line}\n" for line in group).encode("utf-8", "backslashreplace")
            file.write(gzip.compress(data, 6, mtime=0))
        if not file.tell():
            file.write(gzip.compress(b"", mtime=0))


def order_hash(name: str) -> bytes:
    """Return the key by which training cuts are sorted, so that the clips of a block come from the whole set.

    Args:
        name: Id of the cut.

    Returns:
        32 bytes that depend on the id only.
    """
    return hashlib.sha256(f"order {name}".encode("utf-8", "surrogatepass")).digest()
