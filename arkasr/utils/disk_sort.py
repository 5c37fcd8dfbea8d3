"""Sorting of more records than fit into memory, by sorted runs in temporary files."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

T = TypeVar("T")

RUN_RECORDS = 100_000  # records that are sorted in memory
MOST_RUNS = 100  # files that are merged at once. More are first merged into one
_CHUNK = 200  # records that are read of a run at once


class DiskSort(Generic[T]):
    """Collects records, and yields them in the order of their keys. Equal keys stay in the order of `add`.

    At most `RUN_RECORDS` records are in memory. Fewer records are sorted without files.

    Args:
        folder: Where temporary files are. They have no names, so that a killed process leaves none.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._new: list[tuple[Any, int, T]] = []
        self._runs: list[IO[bytes]] = []
        self._count = 0

    def __len__(self) -> int:
        """Number of records."""
        return self._count

    def add(self, key: Any, record: T) -> None:
        """Add one record.

        Args:
            key: Its key. All keys must be comparable.
            record: Anything that can be pickled.
        """
        self._new.append((key, self._count, record))
        self._count += 1
        if len(self._new) >= RUN_RECORDS:
            self._spill()

    def _spill(self) -> None:
        self._new.sort(key=_PLACE)
        self._runs.append(self._written(self._new))
        self._new = []
        if len(self._runs) >= MOST_RUNS:
            self._runs = [self._written(heapq.merge(*map(_read, self._runs), key=_PLACE))]

    def _written(self, records: Iterable[tuple[Any, int, T]]) -> IO[bytes]:
        file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (read and closed later)
        rest = iter(records)
        while chunk := list(islice(rest, _CHUNK)):
            pickle.dump(chunk, file, pickle.HIGHEST_PROTOCOL)
        return file

    def __iter__(self) -> Iterator[T]:
        """Yield the records in order. Can be called again."""
        self._new.sort(key=_PLACE)
        runs = [*map(_read, self._runs), iter(self._new)]
        ordered = runs[0] if len(runs) == 1 else heapq.merge(*runs, key=_PLACE)
        return (record for _, _, record in ordered)

    def close(self) -> None:
        """Delete the temporary files."""
        for file in self._runs:
            file.close()
        self._runs, self._new = [], []


_PLACE: Callable[[tuple[Any, int, Any]], Any] = itemgetter(0, 1)


def _read(file: IO[bytes]) -> Iterator[Any]:
    file.seek(0)
    while True:
        try:
            yield from pickle.load(file)
        except EOFError:
            return
