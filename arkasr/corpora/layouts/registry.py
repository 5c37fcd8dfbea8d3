"""The on-disk layouts by the key `recipe` of corpus.yaml, and the search for one in a directory."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.aishell import Aishell
from arkasr.corpora.layouts.entries import Entry
from arkasr.corpora.layouts.librispeech import LibriSpeech
from arkasr.corpora.layouts.walk import require_readable
from arkasr.corpora.layouts.wenetspeech import WenetSpeech
from arkasr.errors import UserError


class CorpusLayout(Protocol):
    """One corpus on disk, in the layout of its publisher.

    Attributes:
        expected: Description of the files, for error messages.
        subfolders: Where the corpus may be below the directory that the user names. Lhotse's download adds a folder.
        root: Folder of the corpus.
    """

    expected: ClassVar[str]
    subfolders: ClassVar[tuple[str, ...]]
    root: Path

    def __init__(self, root: Path):
        """Read nothing yet.

        Args:
            root: Folder of the corpus.
        """
        ...

    @staticmethod
    def matches(folder: Path) -> bool:
        """Check whether a folder has this layout.

        Args:
            folder: Candidate for `root`.

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

    def scan(self, parts: list[str]) -> list[Entry]:
        """List all utterances, usable or not.

        Args:
            parts: Names of parts on disk.

        Returns:
            One entry for every transcript, and one for every audio file without transcript. Texts are the ones to
            train on.
        """
        ...


LAYOUTS: dict[str, type[CorpusLayout]] = {"librispeech": LibriSpeech, "aishell": Aishell, "wenet_speech": WenetSpeech}


def find_layout(recipe: str, corpus_dir: Path) -> CorpusLayout | None:
    """Look for a corpus in a directory and in the subfolders that Lhotse's download makes.

    Args:
        recipe: Key of `LAYOUTS`.
        corpus_dir: The directory.

    Returns:
        The corpus with an absolute root, or None if the directory has no corpus of this layout.
    """
    layout = LAYOUTS[recipe]
    candidates = (corpus_dir / subfolder for subfolder in layout.subfolders)
    root = next((folder for folder in candidates if layout.matches(folder)), None)
    return layout(root.absolute()) if root is not None else None


def require_layout(corpus: Corpus, corpus_dir: Path) -> CorpusLayout:
    """Return the corpus in a directory.

    Args:
        corpus: The corpus.yaml.
        corpus_dir: The directory.

    Returns:
        The corpus on disk.

    Raises:
        UserError: If the directory is missing, cannot be read, or has another layout.
    """
    if not corpus_dir.is_dir():
        raise UserError(
            f"{corpus_dir}: no such directory; run stage 0 to make the {corpus.name} corpus there, "
            "or name your own with --corpus_dir"
        )
    layout = find_layout(corpus.recipe, corpus_dir)
    if layout is not None:
        return layout
    others = [name for name in LAYOUTS if name != corpus.recipe and find_layout(name, corpus_dir)]
    hint = "name the directory that holds it with --corpus_dir"
    if others:
        hint = f"it has the layout of {others[0]}, so use that corpus.yaml"
    try:
        require_readable(corpus_dir, depth=3)
    except UserError as obstacle:  # it may hide the files that were looked for
        hint = str(obstacle)
    raise UserError(
        f"{corpus_dir}: not the {corpus.name} corpus ({corpus.path} expects {LAYOUTS[corpus.recipe].expected}); "
        f"{hint}, or run stage 0"
    )
