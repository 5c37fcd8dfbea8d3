"""Rows of hypotheses in files: the partial files of all ranks, repaired and merged into one file."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.checks import has_type, json_lines
from arkasr.evaluation.texts_io import ROW_TYPES
from arkasr.utils.console import log
from arkasr.utils.files import publish

Row = dict[str, Any]
SECONDS_TO_SEE = 120.0


class PartFiles:
    """The partial files of one hypothesis file: `<path>.part-<rank>`, and `<path>.part` with rows of an earlier file.

    Args:
        path: The hypothesis file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._first = path.with_name(f"{path.name}.part")

    def of_rank(self, rank: int) -> Path:
        """Return the partial file of a rank.

        Args:
            rank: Number of the rank.

        Returns:
            Its path. The file may be missing.
        """
        return self.path.with_name(f"{self._first.name}-{rank}")

    def paths(self) -> list[Path]:
        """Return all partial files that exist, in the order of ranks."""
        name = re.compile(re.escape(self._first.name) + r"(?:-([0-9]+))?")
        found = {match: path for path in self._siblings() if (match := name.fullmatch(path.name))}
        return [found[match] for match in sorted(found, key=lambda match: int(match[1] or -1))]

    def _siblings(self) -> list[Path]:
        return list(self.path.parent.iterdir()) if self.path.parent.is_dir() else []

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each partial file that exists, by name."""
        return {path.name: path.stat().st_size for path in self.paths()}

    def rows(self) -> dict[str, Row]:
        """Return the rows of all partial files by id."""
        rows: dict[str, Row] = {}
        for path in self.paths():
            rows = read_rows(path)[0] | rows  # an id may be repeated if a rank of a lost machine ended late
        return rows

    def ids(self, sizes: Mapping[str, int]) -> set[str]:
        """Return the ids in the first bytes of partial files. Other ranks may append to them meanwhile.

        Args:
            sizes: Number of bytes by name of file.

        Returns:
            The ids.

        Raises:
            UserError: See `await_sizes`.
        """
        self.await_sizes(sizes)
        found: set[str] = set()
        for name, size in sizes.items():
            found |= read_rows(self.path.with_name(name), size)[0].keys()
        return found

    def create(self, ranks: int) -> None:
        """Create the partial file of each rank, so that this machine knows the names of all of them.

        Args:
            ranks: Number of ranks.
        """
        for rank in range(ranks):
            self.of_rank(rank).touch()

    def await_sizes(self, sizes: Mapping[str, int]) -> None:
        """Wait until this machine sees what another one has written. A network file system may show it later.

        Args:
            sizes: Smallest size in bytes by name of file.

        Raises:
            UserError: It does not see it in time.
        """
        end = time.monotonic() + SECONDS_TO_SEE
        for name, size in sizes.items():
            path = self.path.with_name(name)
            while not path.is_file() or path.stat().st_size < size:
                if time.monotonic() > end:
                    raise UserError(
                        f"{path}: another machine has written {size} bytes, which {socket.gethostname()} does not see; "
                        "put --expdir on a file system that all machines share, under the same path"
                    )
                time.sleep(0.5)

    def repair(self, is_current: Callable[[Row], bool]) -> set[str]:
        """Write partial files again that have other lines than rows of these clips.

        Args:
            is_current: Whether a row may be of the clip that has its id.

        Returns:
            The ids of all rows.
        """
        found: set[str] = set()
        for path in self.paths():
            rows, damaged = read_rows(path)
            fresh = {name: row for name, row in rows.items() if name not in found}
            kept = {name: row for name, row in fresh.items() if is_current(row)}
            if damaged or len(kept) < len(fresh):
                other = f"{damaged} damaged lines and {len(fresh) - len(kept)} of clips with another duration"
                log(f"{path}: {other} left out; their clips are transcribed again")
            if damaged or len(kept) < len(rows) or (rows and not path.read_bytes().endswith(b"\n")):
                self._write(path, kept.values())
            found |= kept.keys()
        return found

    def _write(self, path: Path, rows: Iterable[Row]) -> None:
        new = path.with_name(f"{path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            file.writelines(map(line, rows))
        publish(new, path)

    def merge(self, rows: Iterable[Row]) -> None:
        """Write the hypothesis file and delete the partial files.

        Args:
            rows: All rows, in the final order.
        """
        self._write(self.path, rows)
        self._delete()

    def reopen(self) -> None:
        """Make the hypothesis file a partial file. Others are deleted: an interrupted `merge` has left them."""
        self._delete()
        self.path.replace(self._first)

    def _delete(self) -> None:
        for path in self.paths():
            path.unlink()


def read_rows(path: Path, size: int | None = None) -> tuple[dict[str, Row], int]:
    """Read the rows of a complete, partial or damaged hypothesis file.

    Args:
        path: The file. It may be missing.
        size: Number of bytes to read. None reads all.

    Returns:
        Rows by id, in the order of the file, and the number of lines that are left out: those that are not rows (such
        as a torn last line), and those that repeat an id.
    """
    rows: dict[str, Row] = {}
    damaged = 0
    for _, value in json_lines(path, size) if path.is_file() else ():
        if _is_row(value) and value["id"] not in rows:
            rows[value["id"]] = value
        else:
            damaged += 1
    return rows, damaged


def _is_row(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("id") is None or value.get("hypothesis") is None:
        return False
    return all(value.get(key) is None or has_type(value[key], kind) for key, kind in ROW_TYPES.items())


def line(row: Row) -> str:
    """Write a row as one line.

    Args:
        row: See `arkasr.evaluation.hypotheses.row`.

    Returns:
        The line with its end. It is valid UTF-8 for every text.
    """
    text = json.dumps(row, ensure_ascii=False)
    is_utf8 = text.encode("utf-8", "replace").decode() == text  # false for half of a surrogate pair
    return (text if is_utf8 else json.dumps(row)) + "\n"
