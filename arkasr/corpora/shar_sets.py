"""The sets of a data directory with their audio in the format Lhotse Shar (`arkasr prepare --shar`).

The tar files are in `<datadir>/shar/<set>`, one folder for the training set and one for each dev or test set. The
manifests keep their names and their order. Their cuts name a tar file instead of an audio file. `base`, `td` and `opd`
share the tar files of `train`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkasr.corpora.data_dir import SHAR
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.set_rows import SetRows, SubsetRows
from arkasr.data.blocks import write_lines
from arkasr.data.shar_writer import select, write_shar
from arkasr.errors import UserError


class SharSet:
    """A set of a data directory with its own tar files, see `arkasr.corpora.data_dir.ManifestSet`.

    Args:
        name: Name of the set.
        rows: The set with its audio in files.
        data: The data directory.
        num_jobs: Number of processes.

    Attributes:
        totals: The counts, with the clips whose audio cannot be read.
        failed: The clips whose audio could not be read, see `arkasr.data.shar_shard.Shard`.
        tar_bytes: Size of every tar file, in bytes.
    """

    def __init__(self, name: str, rows: SetRows, data: Path, num_jobs: int):
        self.name, self.rows, self.data, self.num_jobs = name, rows, data, num_jobs
        self.totals = rows.totals
        self.failed: Sequence[dict[str, Any]] = ()
        self.tar_bytes: Sequence[int] = ()

    def write(self, path: Path) -> None:
        """Write the tar files and the manifest. Shards of an interrupted call are kept.

        Args:
            path: The manifest.

        Raises:
            UserError: The audio of no clip can be read.
        """
        plain, folder = path.with_name(f".{self.name}.files.jsonl.gz"), self.data / SHAR / self.name
        write_lines(plain, self.rows.lines())
        written = write_shar(plain, folder, path, self.num_jobs)
        plain.unlink()
        self.failed, self.tar_bytes = written.failed, written.tar_bytes
        if self.failed and not written.clips:
            first = self.failed[0]
            raise UserError(
                f"{self.name}: the audio of none of {len(self.failed)} clips can be read; the first: "
                f"{first['reason']}: {first['path']}; repair the files"
            )

    def dropped(self) -> Iterator[Entry]:
        """Yield the utterances that were dropped, also those whose audio could not be read."""
        yield from self.rows.dropped()
        for each in self.failed:
            yield Entry(self.name, each["id"], Path(each["path"]), reason=each["reason"])


class SharSubset:
    """A subset of a `SharSet`, without own tar files. It must be written after that set.

    Args:
        rows: The subset with its audio in files.
        whole: The set.

    Attributes:
        totals: See `SharSet`.
        failed: See `SharSet`.
        tar_bytes: Empty.
    """

    def __init__(self, rows: SubsetRows, whole: SharSet):
        self.rows, self.whole = rows, whole
        self.totals = rows.totals
        self.failed: Sequence[dict[str, Any]] = ()
        self.tar_bytes: Sequence[int] = ()

    def write(self, path: Path) -> None:
        """Write the manifest.

        Args:
            path: The manifest.
        """
        failed, mine = {each["id"]: each for each in self.whole.failed}, []

        def names() -> Iterator[str]:
            for name in self.rows.ids():
                if name in failed:
                    mine.append(failed[name])
                else:
                    yield name

        select(self.whole.data / f"{self.whole.name}.jsonl.gz", names(), path)
        self.failed = mine

    def dropped(self) -> Iterator[Entry]:
        """Yield nothing, because the set lists what was dropped."""
        return iter(())


def with_shar(sets: Mapping[str, SetRows | SubsetRows], data: Path, num_jobs: int) -> dict[str, SharSet | SharSubset]:
    """Let all sets be written with their audio in tar files.

    Args:
        sets: The sets by name. Subsets are those of `train`.
        data: The data directory.
        num_jobs: Number of processes.

    Returns:
        The same sets.
    """
    whole = {name: SharSet(name, each, data, num_jobs) for name, each in sets.items() if isinstance(each, SetRows)}
    return {
        name: SharSubset(each, whole["train"]) if isinstance(each, SubsetRows) else whole[name]
        for name, each in sets.items()
    }
