"""The on-disk layouts by the key `layout` of corpus.yaml, and the search for one in a directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from arkasr.config.load import check_options
from arkasr.corpora.corpus import PUBLISHED, Corpus
from arkasr.corpora.layouts.aishell import Aishell
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.hf import HuggingFace
from arkasr.corpora.layouts.lhotse import Lhotse
from arkasr.corpora.layouts.librispeech import LibriSpeech
from arkasr.corpora.layouts.table import CsvTables, JsonTables
from arkasr.corpora.layouts.walk import require_readable
from arkasr.corpora.layouts.wenetspeech import WenetSpeech
from arkasr.errors import UserError


class CorpusLayout(Protocol):
    """One corpus on disk. To add a layout, write such a class and name it in `LAYOUTS`.

    Attributes:
        expected: Description of the files, for error messages.
        subfolders: Where the corpus may be below the directory that the user names. Lhotse's download adds a folder.
        options: Dataclass of the section `options` of corpus.yaml. It is checked before a layout is made.
        source_option: Option that names data outside of the folder, such as an id on a hub. If corpus.yaml sets it, the
            folder may be missing, and `matches` is not called. Empty: no such option.
        root: Folder of the corpus.
    """

    expected: ClassVar[str]
    subfolders: ClassVar[tuple[str, ...]]
    options: ClassVar[type[Any]]
    source_option: ClassVar[str]
    root: Path

    def __init__(self, root: Path, corpus: Corpus):
        """Read nothing yet.

        Args:
            root: Folder of the corpus.
            corpus: The corpus.yaml, with the names of columns and the options.
        """
        ...

    @staticmethod
    def matches(folder: Path, corpus: Corpus) -> bool:
        """Check whether a folder has this layout.

        Args:
            folder: Candidate for `root`.
            corpus: The corpus.yaml.

        Returns:
            True if it has.
        """
        ...

    def parts(self) -> list[str]:
        """Return the names of the parts on disk, sorted. A part may be a link to nothing, which `scan` refuses."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when parts are added or removed. Must be cheap to compute."""
        ...

    def transcripts(self, parts: list[str]) -> list[Path]:
        """List the transcript files.

        Args:
            parts: Names of parts on disk.

        Returns:
            Their paths.
        """
        ...

    def scan(self, parts: list[str]) -> Iterable[Entry]:
        """List all utterances, usable or not.

        Args:
            parts: Names of parts on disk.

        Returns:
            One entry for every utterance that the corpus lists, and one for every audio file without transcript of
            corpora whose publisher has transcribed all. Texts are the ones to train on. Text is None if the layout
            allows utterances without transcript.
        """
        ...


LAYOUTS: dict[str, type[CorpusLayout]] = {
    "librispeech": LibriSpeech,
    "aishell": Aishell,
    "wenet_speech": WenetSpeech,
    "jsonl": JsonTables,
    "csv": CsvTables,
    "lhotse": Lhotse,
    "hf": HuggingFace,
}


def layout_class(corpus: Corpus) -> type[CorpusLayout]:
    """Return the class of a corpus's layout, and check the options for it.

    Args:
        corpus: The corpus.yaml.

    Returns:
        The class.

    Raises:
        UserError: The section `options` is wrong for this layout.
    """
    layout = LAYOUTS.get(corpus.layout)
    if layout is None:
        raise UserError(f"{corpus.path}: layout {corpus.layout} is none of {', '.join(LAYOUTS)}; use one of them")
    check_options(layout.options, corpus.options, f"{corpus.path}: options")
    return layout


def find_layout(corpus: Corpus, corpus_dir: Path) -> CorpusLayout | None:
    """Look for a corpus in a directory and in the subfolders that Lhotse's download makes.

    Args:
        corpus: The corpus.yaml.
        corpus_dir: The directory.

    Returns:
        The corpus with an absolute root, or None if the directory has no corpus of this layout.

    Raises:
        UserError: The section `options` is wrong for this layout.
    """
    layout = layout_class(corpus)
    if corpus.options.get(layout.source_option):
        return layout(corpus_dir.absolute(), corpus)
    root = _root(layout, corpus, corpus_dir)
    return layout(root, corpus) if root is not None else None


def _root(layout: type[CorpusLayout], corpus: Corpus, corpus_dir: Path) -> Path | None:
    candidates = (corpus_dir / subfolder for subfolder in layout.subfolders)
    return next((folder.absolute() for folder in candidates if layout.matches(folder, corpus)), None)


def require_layout(corpus: Corpus, corpus_dir: Path) -> CorpusLayout:
    """Return the corpus in a directory.

    Args:
        corpus: The corpus.yaml.
        corpus_dir: The directory. Tables may be named themselves.

    Returns:
        The corpus on disk.

    Raises:
        UserError: If the directory is missing, cannot be read, or has another layout.
    """
    expected, named = layout_class(corpus), find_layout(corpus, corpus_dir) if corpus.options else None
    if named is None and not corpus_dir.exists():
        stage_0 = f"run stage 0 to make the {corpus.name} corpus there, or " if corpus.layout in PUBLISHED else ""
        own = f"to obtain {corpus.name}, {corpus.obtain}; then name it with --corpus_dir" if corpus.obtain else ""
        own = own if own and not stage_0 else "name your own with --corpus_dir"
        raise UserError(f"{corpus_dir}: no such file or folder; {stage_0}{own}")
    layout = named or find_layout(corpus, corpus_dir)
    if layout is not None:
        return layout
    others = [name for name, other in LAYOUTS.items() if other is not expected and _root(other, corpus, corpus_dir)]
    hint = "name the directory that holds it with --corpus_dir"
    if others:
        hint = f"it has the layout {others[0]}, so set `layout` or use that corpus.yaml"
    try:
        require_readable(corpus_dir, depth=3)
    except UserError as obstacle:  # it may hide the files that were looked for
        hint = str(obstacle)
    raise UserError(
        f"{corpus_dir}: not the {corpus.name} corpus ({corpus.path} expects {expected.expected}); "
        f"{hint}{', or run stage 0' if corpus.layout in PUBLISHED else ''}"
    )
