"""Where a Hugging Face data set is, and its rows. The only module that imports `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.errors import UserError
from arkasr.utils.files import read_json

_SAVED = ("dataset_dict.json", "state.json")  # of several splits, of one split
_TABLES = (".parquet", ".arrow", "metadata.csv", "metadata.jsonl", "metadata.parquet")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus")
DATA_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".jsonl.gz", ".txt", ".zip", ".tar")
_DEPTH = 3  # levels of folders that are looked at for data files


def is_data_set(folder: Path) -> bool:
    """Check whether a folder looks like a data set of `datasets`, without importing it.

    Args:
        folder: An existing folder.

    Returns:
        True if it does.
    """
    for place, folders, names in os.walk(folder):
        if any(name in _SAVED or name.endswith(_TABLES + AUDIO_SUFFIXES) for name in names):
            return True
        folders[:] = sorted(folders) if len(Path(place).relative_to(folder).parts) < _DEPTH else []
    return False


def require_datasets() -> ModuleType:
    """Import `datasets`.

    Returns:
        The module.

    Raises:
        UserError: It is not installed.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(f"layout hf needs the package datasets ({error}); run: pip install 'arkasr[hf]'") from error
    datasets.disable_progress_bars()
    return datasets


def _undecoded(datasets: ModuleType) -> Any:
    """Return a feature that passes on bytes and paths. Audio(decode=False) needs torchcodec for rows that are paths."""

    class Undecoded(datasets.Audio):  # type: ignore[name-defined]
        def encode_example(self, value: Any) -> Any:
            return {"bytes": None, "path": str(value)} if isinstance(value, str | Path) else value

    return Undecoded(decode=False)


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        root: Its folder. Not used if `hub` is set.
        hub: See `HubOptions`.
        config: See `HubOptions`.
        revision: See `HubOptions`.
        streaming: See `HubOptions`.
    """

    root: Path
    hub: str = ""
    config: str = ""
    revision: str = ""
    streaming: bool = False

    def __str__(self) -> str:
        names = [self.hub or str(self.root), self.config, f"revision {self.revision}" if self.revision else ""]
        return " ".join(name for name in names if name)

    def splits(self) -> list[str]:
        """Return the names of the splits, sorted.

        Raises:
            UserError: See `rows`.
        """
        datasets = require_datasets()
        with self._explained():
            if self._is_saved():
                return sorted(self._saved())
            names = datasets.get_dataset_split_names(self.hub or str(self.root), **self._options())
            return sorted(map(str, names))

    def rows(self, split: str, columns: ColumnMap) -> Iterator[dict[str, Any]]:
        """Yield the rows of a split, without decoding audio.

        Args:
            split: Name of the split.
            columns: Decides which columns are needed. The others are not read.

        Yields:
            The rows with the needed columns. Numbers of classes are replaced by their names.

        Raises:
            UserError: The split does not exist, or the data set is damaged or cannot be reached.
        """
        datasets = require_datasets()
        with self._explained():
            data = self._open(datasets, split)
            if data is None:
                return
            features = data.features or data._resolve_features().features
            names = columns.of(dict.fromkeys(features))
            if names.audio is None:
                raise columns.no_audio(Path(f"{self} split {split}"), dict.fromkeys(features))
            needed = list(dict.fromkeys(name for name in names if name is not None))
            missing = [name for name in columns.chosen.values() if name not in features]
            data = data.select_columns(needed) if not missing else data
            for name in needed:
                if isinstance(features[name], datasets.Audio):
                    data = data.cast_column(name, _undecoded(datasets))
        classes = {name: features[name] for name in needed if isinstance(features[name], datasets.ClassLabel)}
        rows = iter(data)
        while True:
            with self._explained():
                row = next(rows, None)
            if row is None:
                return
            yield row | {name: kind.int2str(row[name]) for name, kind in classes.items() if row[name] is not None}

    def _is_saved(self) -> bool:
        return not self.hub and any((self.root / name).is_file() for name in _SAVED)

    def _options(self) -> dict[str, Any]:
        named = {"config_name": self.config, "revision": self.revision}
        return {key: value for key, value in named.items() if value}

    def _saved(self) -> dict[str, Path]:
        """Return the folders of the splits that `save_to_disk` has written."""
        if (self.root / _SAVED[0]).is_file():
            splits = read_json(self.root / _SAVED[0], "save the data set again").get("splits", [])
            return {str(split): self.root / str(split) for split in splits}
        return {str(read_json(self.root / _SAVED[1], "save the data set again").get("_split") or "train"): self.root}

    def _open(self, datasets: ModuleType, split: str) -> Any:
        """Open a split. None for one that was saved without rows, which `datasets` cannot load."""
        if self._is_saved():
            saved = self._saved()
            if split not in saved:
                raise UserError(f"{self}: has no split {split}; it has {', '.join(sorted(saved))}")
            if not read_json(saved[split] / _SAVED[1], "save the data set again").get("_data_files", True):
                return None
            return datasets.load_from_disk(str(saved[split]))
        options = self._options()
        if "config_name" in options:
            options["name"] = options.pop("config_name")
        streaming = self.streaming or not self.hub  # files of a folder are read in place, without a copy in a cache
        return datasets.load_dataset(self.hub or str(self.root), split=split, streaming=streaming, **options)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the errors of `datasets` into one sentence."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # `datasets` passes on errors of many libraries
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, ConnectionError) or "OfflineModeIsEnabled" in reason:
                raise UserError(
                    f"{self}: the Hugging Face Hub cannot be reached ({reason}); connect to the network, or download "
                    "the data set elsewhere, save it with save_to_disk, and name that folder with --corpus_dir"
                ) from error
            where = "options.hub, options.config and options.revision" if self.hub else "the files in --corpus_dir"
            raise UserError(
                f"{self}: cannot be read by datasets ({type(error).__name__}: {reason}); correct {where}"
            ) from error
