"""Stage 0: the corpus itself. Spoken by espeak-ng at mini scale, fetched by Lhotse at paper scale."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

from arkasr.corpora.corpus import Corpus, read_corpus_yaml
from arkasr.corpora.layouts.registry import LAYOUTS, find
from arkasr.corpora.synthetic.synth import ROLES, VERSION
from arkasr.corpora.synthetic.writers import FILES, WRITERS
from arkasr.errors import UserError
from arkasr.utils.console import Progress, log

_DONE, _ASIDE = ".completed", ".speaking"


def download(corpus_yaml: str, scale: str, corpus_dir: str) -> None:
    """Put the corpus into `corpus_dir`, or do nothing if it is there.

    Raises UserError for a directory that holds something else, a missing espeakng-loader, a failed transfer, and
    for a corpus that cannot be fetched without its owner's leave.
    """
    corpus = read_corpus_yaml(corpus_yaml)
    corpus.scale(scale)
    folder = Path(corpus_dir).absolute()
    if scale == "mini":
        _speak(corpus, folder)
    else:
        _fetch(corpus, folder, scale)


def _speak(corpus: Corpus, folder: Path) -> None:
    """Speak the miniature corpus aside and move it into place; an interrupted call starts over."""
    recipe = {"version": VERSION, "name": corpus.name, "recipe": corpus.recipe} | vars(corpus.miniature)
    done = _read_marker(folder)
    if done == recipe:
        log(f"{folder}: the miniature {corpus.name} is there already (seed {corpus.miniature.seed})")
        return
    if not done and not (folder / _ASIDE).exists():
        if find(corpus.recipe, folder):
            log(f"{folder}: a {corpus.name} corpus is there; nothing to do")
            return
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: holds other files than a {corpus.name} corpus; give an empty --corpus_dir")
    sizes = _sizes(corpus)
    aside = _clear(corpus, folder)
    total = sum(sizes[role.part] for role in ROLES[corpus.recipe])
    with Progress(f"Speaking {corpus.name}", total, "sentences") as progress:
        WRITERS[corpus.recipe](aside, corpus.language, sizes, corpus.miniature.seed, progress.update)
    for name in FILES[corpus.recipe]:
        os.replace(aside / name, folder / name)
    aside.rmdir()
    marker = folder / f"{_DONE}.tmp"
    marker.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    os.replace(marker, folder / _DONE)
    log(f"{folder}: {total} sentences spoken")


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / _DONE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def is_spoken(folder: Path) -> bool:
    """Tell whether a corpus folder holds a spoken miniature."""
    return _read_marker(folder) is not None


def _sizes(corpus: Corpus) -> dict[str, int]:
    """Return the sizes of all parts. Raises UserError for a part that the miniature lacks or does not know."""
    sizes, known = corpus.miniature.sizes, {role.part for role in ROLES[corpus.recipe]}
    known |= {"M", "S"} if corpus.recipe == "wenet_speech" else set()
    if set(sizes) != known:
        names, given = ", ".join(sorted(known)), ", ".join(sorted(sizes))
        raise UserError(f"{corpus.path}: miniature.sizes must name {names}, not {given}")
    if min(sizes.values()) < 1 or (corpus.recipe == "wenet_speech" and not sizes["L"] >= sizes["M"] >= sizes["S"]):
        raise UserError(f"{corpus.path}: miniature.sizes must be 1 or more each, and M and S no larger than L and M")
    return sizes


def _clear(corpus: Corpus, folder: Path) -> Path:
    """Remove what an earlier call spoke, and return an empty folder aside. Other people's files stay."""
    aside = folder / _ASIDE
    aside.mkdir(parents=True, exist_ok=True)  # stands before anything is removed, so that a cut here is resumed
    (folder / _DONE).unlink(missing_ok=True)
    for path in [folder / name for name in FILES[corpus.recipe]] + [aside]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    aside.mkdir()
    return aside


def _fetch(corpus: Corpus, folder: Path, scale: str) -> None:
    """Call Lhotse's own download, which keeps finished archives; a corpus unpacked by somebody else is left alone."""
    kind = LAYOUTS[corpus.recipe]
    if kind.found(folder):
        log(f"{folder}: a {corpus.name} corpus is there; nothing to do")
        return
    facts = corpus.scale(scale)
    if corpus.recipe == "wenet_speech":
        raise UserError(
            f"{corpus.name} cannot be fetched by a program: {corpus.obtain}; then give its directory with --corpus_dir"
        )
    log(f"Fetching {corpus.name} into {folder} ({corpus.obtain})")
    try:
        if corpus.recipe == "aishell":
            from lhotse.recipes import download_aishell

            download_aishell(folder)
        else:
            from lhotse.recipes import download_librispeech

            download_librispeech(folder, dataset_parts=[*facts.train, *facts.dev, *facts.test])
    except (URLError, ConnectionError, TimeoutError) as error:
        raise UserError(
            f"{corpus.name} could not be fetched into {folder}: {error}; run the same command again to carry on, "
            "or give an existing corpus with --corpus_dir"
        ) from error
