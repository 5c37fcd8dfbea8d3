"""Layout `hf`: data sets of the library `datasets`: saved to disk, a folder of data files, or on the Hugging Face Hub.

Audio is never decoded by `datasets`, which would need torchcodec. Its bytes become files below the data directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.columns import ColumnMap
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.hf_audio import AudioStore, Unstored, source_name
from arkasr.corpora.layouts.hf_source import AUDIO_SUFFIXES, DATA_SUFFIXES, Source, is_data_set
from arkasr.corpora.layouts.table_entries import EntryMaker
from arkasr.corpora.layouts.walk import find_files
from arkasr.errors import UserError
from arkasr.utils.console import log

_FIELDS = ("text", "language", "speaker", "start", "end", "duration", "task", "id")


@dataclass
class HubOptions:
    """The section `options` of corpus.yaml for the layout `hf`.

    Attributes:
        hub: Id of a data set on the Hugging Face Hub, such as `google/fleurs`. Empty: the data set is in --corpus_dir.
        config: Name of its configuration, such as `de_de`. Empty: the only or default one.
        revision: Commit, tag or branch. Empty: the newest state when stage 1 runs first.
        streaming: Read the data set over the network row by row, without a copy in the cache of `datasets`.
    """

    hub: str = ""
    config: str = ""
    revision: str = ""
    streaming: bool = False


class HuggingFace:
    """A data set of `datasets`, see `arkasr.corpora.layouts.registry.CorpusLayout`. Its parts are its splits.

    Without the key `columns.id`, the id of a row is the name of its audio and a hash of its bytes.

    Args:
        root: Folder with the result of `save_to_disk`, with files that `datasets.load_dataset` reads (Parquet, Arrow,
            JSON, CSV), or with an `audiofolder`. With the option `hub`, it may be missing.
        corpus: The corpus.yaml with the names of columns and the options of `HubOptions`.

    Attributes:
        audio_dir: Folder for audio that is not a file. Stage 1 sets it.
    """

    expected: ClassVar[str] = "a data set of `datasets`: saved by save_to_disk, Parquet files, or an audiofolder"
    subfolders: ClassVar[tuple[str, ...]] = ("",)
    options: ClassVar[type[Any]] = HubOptions
    source_option: ClassVar[str] = "hub"

    def __init__(self, root: Path, corpus: Corpus):
        self.root, self.corpus = root, corpus
        self.audio_dir = root
        self.source = Source(root, **vars(HubOptions(**corpus.options)))

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """See `CorpusLayout.matches`."""
        return folder.is_dir() and is_data_set(folder)

    def parts(self) -> list[str]:
        """See `CorpusLayout.parts`.

        Raises:
            UserError: The data set cannot be read or reached, `datasets` is not installed, or `columns.split` is set.
        """
        if self.corpus.columns.split:
            raise UserError(
                f"{self.corpus.path}: columns.split {self.corpus.columns.split!r}: not for the layout hf, because the "
                "splits of a data set are its parts; remove the key"
            )
        return self.source.splits()

    def fingerprint(self) -> str:
        """See `CorpusLayout.fingerprint`. Of a data set on the Hub, it is the id, and no network is needed."""
        if self.source.hub:
            return str(self.source)
        states = ((path, path.stat()) for path in self.transcripts([]))
        files = [f"{path.relative_to(self.root)} {state.st_size} {state.st_mtime_ns}" for path, state in states]
        return " ".join([*files, f"{len(find_files(self.root, AUDIO_SUFFIXES))} audio files"])

    def transcripts(self, parts: list[str]) -> list[Path]:
        """See `CorpusLayout.transcripts`. They are the data files of all parts. `hub` has none."""
        return [] if self.source.hub else find_files(self.root, DATA_SUFFIXES)

    def scan(self, parts: list[str]) -> Iterator[Entry]:
        """See `CorpusLayout.scan`.

        Yields:
            The utterances. Their audio is written to `audio_dir` meanwhile, unless it is there from an earlier call.

        Raises:
            UserError: A split or a column is missing, the data set cannot be read or reached, or `datasets` is not
                installed.
        """
        store = AudioStore(self.audio_dir, self.root)
        columns = ColumnMap(vars(self.corpus.columns))
        for part in parts:
            yield from self._part(part, store, columns)
        columns.require_found([self.root])
        if store.num_written or store.num_kept:
            log(f"{self.audio_dir}: {store.num_written} audio files written, {store.num_kept} were there already")

    def _part(self, part: str, store: AudioStore, columns: ColumnMap) -> Iterator[Entry]:
        # rows are named by split and number
        maker = EntryMaker(self.audio_dir / part, self.audio_dir, ColumnMap({}))
        for number, row in enumerate(self.source.rows(part, columns), 1):
            names = columns.of(row)
            if names.audio is None:
                raise columns.no_audio(Path(f"{self.source} split {part}"), row)
            fields = {field: row[name] for field in _FIELDS if (name := getattr(names, field)) is not None}
            if "id" not in columns.chosen:  # other columns `id` often number sentences, and repeat
                fields.pop("id", None)
            try:
                path, digest = store.path(row[names.audio])
            except Unstored as reason:
                yield maker.fault(part, number, reason.reason)
                continue
            fields.setdefault("id", f"{source_name(row[names.audio])}-{digest}")
            yield maker.entry(part, number, fields | {"audio": str(path)})
