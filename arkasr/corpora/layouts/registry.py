"""The on-disk layouts by the name of Lhotse's recipe, and where in a directory one lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from arkasr.corpora.corpus import Corpus
from arkasr.corpora.layouts.aishell import Aishell
from arkasr.corpora.layouts.entries import Entry, Scan
from arkasr.corpora.layouts.librispeech import LibriSpeech
from arkasr.corpora.layouts.wenetspeech import WenetSpeech
from arkasr.errors import UserError


class CorpusLayout(Protocol):
    """What every layout answers."""

    expected: str
    homes: tuple[str, ...]
    skips: frozenset[str]
    root: Path

    @staticmethod
    def found(folder: Path) -> bool: ...
    def parts(self) -> list[str]: ...
    def fingerprint(self) -> str: ...
    def transcripts(self, parts: list[str]) -> list[Path]: ...
    def scan(self, parts: list[str]) -> Scan: ...
    def mirror(self, folder: Path, entries: list[Entry]) -> None: ...
    @staticmethod
    def clean(text: str) -> str: ...
    def manifests(self, root: Path, parts: list[str], output_dir: Path, num_jobs: int) -> dict[str, dict[str, Any]]: ...


LAYOUTS: dict[str, type] = {"librispeech": LibriSpeech, "aishell": Aishell, "wenet_speech": WenetSpeech}


def find(recipe: str, corpus_dir: Path) -> CorpusLayout | None:
    """Return the layout of `recipe` at `corpus_dir`, or where Lhotse's download puts it below it; None if absent."""
    kind = LAYOUTS[recipe]
    root = next((corpus_dir / home for home in kind.homes if kind.found(corpus_dir / home)), None)
    return kind(root.absolute()) if root is not None else None


def require(corpus: Corpus, corpus_dir: Path) -> CorpusLayout:
    """Return the corpus's layout at `corpus_dir`. Raises UserError that says what is there instead."""
    if not corpus_dir.is_dir():
        raise UserError(
            f"{corpus_dir}: no such directory; run stage 0 to make the {corpus.name} corpus there, "
            "or give your own with --corpus_dir"
        )
    layout = find(corpus.recipe, corpus_dir)
    if layout is not None:
        return layout
    others = [name for name in LAYOUTS if name != corpus.recipe and find(name, corpus_dir)]
    hint = "give the directory that holds it"
    if others:
        hint = f"it has the layout of {others[0]}, so use that corpus.yaml"
    raise UserError(
        f"{corpus_dir}: not the {corpus.name} corpus ({corpus.path} expects {LAYOUTS[corpus.recipe].expected}); "
        f"{hint}, or run stage 0"
    )
