"""Stage 0: the corpus itself. Downloaded by Lhotse at paper scale, synthesised with espeak-ng at the other scales."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

from arkasr.corpora.corpus import PUBLISHED, Corpus, read_corpus_yaml
from arkasr.corpora.layouts.registry import find_layout, layout_class, require_layout
from arkasr.corpora.miniature import KINDS, Miniature
from arkasr.corpora.mix_corpus import is_mix_corpus, read_mix_corpus
from arkasr.corpora.synthetic.spoken_text import digest, read_sentences, text_roles
from arkasr.corpora.synthetic.synth import VERSION, Role, roles_of
from arkasr.corpora.synthetic.writers import WRITERS, files_of
from arkasr.errors import UserError
from arkasr.utils.console import Progress, log
from arkasr.utils.files import LOCK, flush, locked, read_json, write_text

_MARKER = ".completed"  # JSON: how the corpus in this folder was synthesised
_PARTIAL = ".speaking"  # folder of a corpus that is not complete yet


def download(corpus_yaml: str, scale: str, corpus_dir: str) -> None:
    """Write the corpus into a directory. Do nothing if it is already there. Your own audio must already be there.

    Args:
        corpus_yaml: Path of the corpus.yaml.
        scale: `mini` or `study` (synthesise), or `paper` (download).
        corpus_dir: The directory, made if it is missing.

    Raises:
        UserError: If the directory holds other files or is in use, espeakng-loader is missing, a transfer fails, or
            the corpus needs its owner's permission and cannot be downloaded by a program.
    """
    if is_mix_corpus(corpus_yaml):
        members = read_mix_corpus(corpus_yaml).members.values()
        raise UserError(f"{corpus_yaml}: a mix has no corpus of its own; download its members {', '.join(members)}")
    corpus = read_corpus_yaml(corpus_yaml)
    miniature = None if scale == "paper" else corpus.scale(scale).miniature
    folder = Path(corpus_dir).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--corpus_dir {folder}: is a file, must be a folder; name another one")
    if miniature is not None:
        _synthesise(corpus, miniature, folder)
    elif corpus.layout in PUBLISHED and scale == "paper":
        _download(corpus, folder, scale)
    else:
        require_layout(corpus, folder)
        log(f"{folder}: stage 1 reads your own {corpus.layout} corpus; nothing to do")


def _synthesise(corpus: Corpus, miniature: Miniature, folder: Path) -> None:
    """Synthesise the corpus into a subfolder, then move it into place. An interrupted call starts again."""
    recipe = {"version": VERSION, "name": corpus.name, "recipe": corpus.layout} | miniature.identity
    roles = _roles(corpus, miniature)
    if miniature.kind == "text":
        recipe["text"] = digest([line for role in roles for line in role.lines])
    names = files_of(corpus.layout, roles)
    if _is_there(corpus, folder, recipe, names):
        return
    sizes = _sizes(corpus, miniature, roles)
    with locked(folder, "arkasr download"):
        if _is_there(corpus, folder, recipe, names):  # another process has just written it
            return
        partial = _clear(corpus, folder, names)
        total = sum(sizes[role.part] for role in roles)
        with Progress(f"Synthesising {corpus.name}", total, "sentences") as progress:
            WRITERS[corpus.layout](partial, corpus.language, roles, sizes, miniature.seed, progress.update)
        os.sync()  # before the marker counts. One call, because fsync of thousands of files takes longer
        for name in names:
            os.replace(partial / name, folder / name)
        partial.rmdir()
        flush([folder])
        write_text(folder / _MARKER, json.dumps(recipe, indent=1) + "\n")
        log(f"{folder}: {total} sentences synthesised")


def _is_there(corpus: Corpus, folder: Path, recipe: dict[str, Any], names: Sequence[str]) -> bool:
    """Return whether a corpus of this layout is complete, and log it. Raise UserError for a folder of other files."""
    done = _read_marker(folder)
    if done == recipe and all((folder / name).exists() for name in names):
        log(f"{folder}: the synthetic {corpus.name} corpus already exists (seed {recipe['seed']})")
        return True
    if done or (folder / _PARTIAL).exists():
        return False
    if find_layout(corpus, folder):
        log(f"{folder}: a {corpus.layout} corpus already exists; nothing to do")
        return True
    if folder.is_dir() and set(os.listdir(folder)) - {LOCK}:
        raise UserError(f"{folder}: holds files, but not the {corpus.name} corpus; use an empty --corpus_dir")
    return False


def _read_marker(folder: Path) -> dict[str, Any] | None:
    path = folder / _MARKER
    if not path.is_file():
        return None
    what_to_do = f"if stage 0 wrote {folder}, delete the folder and run stage 0 again, otherwise remove this file"
    marker = read_json(path, what_to_do)
    if set(marker) - {"kind", "text"} != {"version", "name", "recipe", "seed", "sizes"}:
        raise UserError(f"{path}: stage 0 did not write this file; {what_to_do}")
    return marker


def is_synthetic(folder: Path) -> bool:
    """Return whether stage 0 synthesised the corpus in a folder.

    Args:
        folder: A corpus directory.

    Returns:
        True if the folder holds the marker of a complete synthetic corpus.

    Raises:
        UserError: If the marker is damaged.
    """
    return _read_marker(folder) is not None


def _roles(corpus: Corpus, miniature: Miniature) -> tuple[Role, ...]:
    """Return the parts of the synthetic corpus. Raises UserError if the layout has none of this kind."""
    if miniature.kind == "text" and corpus.layout == "jsonl":
        path = corpus.path.parent / miniature.text
        return text_roles(read_sentences(path), miniature.sizes, path)
    roles = roles_of(corpus.layout, miniature.kind)
    if not roles:
        raise UserError(
            f"{corpus.path}: miniature.kind {miniature.kind}: there is no such corpus in the layout {corpus.layout}; "
            "use mini, or remove the key"
        )
    return roles


def _sizes(corpus: Corpus, miniature: Miniature, roles: Sequence[Role]) -> dict[str, int]:
    """Return the sizes of all parts. Raises UserError for a missing or unknown part, and for an invalid size."""
    known, sizes = {role.part for role in roles}, miniature.sizes
    known |= {"M", "S"} if corpus.layout == "wenet_speech" else set()
    if set(sizes) != known:
        raise UserError(
            f"{corpus.path}: miniature.sizes must name exactly {', '.join(sorted(known))}, "
            f"got {', '.join(sorted(sizes))}"
        )
    if corpus.layout == "wenet_speech" and not sizes["L"] >= sizes["M"] >= sizes["S"]:
        raise UserError(f"{corpus.path}: miniature.sizes must satisfy L >= M >= S, got {sizes}")
    return sizes


def _clear(corpus: Corpus, folder: Path, names: Sequence[str]) -> Path:
    """Remove what an earlier call synthesised, and return an empty subfolder. Files of other origin stay."""
    earlier = (_read_marker(folder) or {}).get("sizes", {}) if corpus.layout == "jsonl" else {}
    partial = folder / _PARTIAL
    partial.mkdir(parents=True, exist_ok=True)  # before anything is removed, so that an interrupted call starts again
    (folder / _MARKER).unlink(missing_ok=True)
    flush([folder])
    kinds = (roles_of(corpus.layout, kind) for kind in KINDS)
    known = [name for roles in kinds for name in files_of(corpus.layout, roles)] + [f"{part}.jsonl" for part in earlier]
    for path in [folder / name for name in dict.fromkeys([*names, *known])] + [partial]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    partial.mkdir()
    return partial


def _download(corpus: Corpus, folder: Path, scale: str) -> None:
    """Call Lhotse's download, which keeps complete archives. A corpus that is already unpacked is not changed."""
    if layout_class(corpus).matches(folder, corpus):
        log(f"{folder}: a {corpus.layout} corpus already exists; nothing to do")
        return
    facts = corpus.scale(scale)
    if corpus.layout == "wenet_speech":
        raise UserError(
            f"{corpus.name} cannot be downloaded by a program: {corpus.obtain}; then name its directory with "
            "--corpus_dir"
        )
    parts = [*facts.train, *facts.dev, *facts.test]
    with locked(folder, "arkasr download"):
        _require_replaceable(corpus, folder, parts)
        log(f"Downloading {corpus.name} into {folder} ({corpus.obtain})")
        try:
            if corpus.layout == "aishell":
                from lhotse.recipes import download_aishell

                download_aishell(folder)
            else:
                from lhotse.recipes import download_librispeech

                download_librispeech(folder, dataset_parts=parts)
        except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
            raise UserError(
                f"{corpus.name} could not be downloaded into {folder}: {error}; run the same command again to resume, "
                "or name an existing corpus with --corpus_dir"
            ) from error
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise UserError(
                f"{folder}: an archive is damaged ({error}); delete the newest archive there and run the same command "
                "again"
            ) from error


def _require_replaceable(corpus: Corpus, folder: Path, parts: list[str]) -> None:
    """Refuse folders that Lhotse's download would delete although it did not unpack them."""
    if corpus.layout == "aishell":
        archives = {folder / "aishell" / name: folder / f"{name}.tgz" for name in ("data_aishell", "resource_aishell")}
    else:
        archives = {folder / "LibriSpeech" / part: folder / f"{part}.tar.gz" for part in parts}
    for unpacked, archive in archives.items():
        if unpacked.exists() and not (unpacked / ".completed").is_file() and not archive.exists():
            raise UserError(
                f"{unpacked}: stage 0 did not download this folder, and would replace it; name {folder} with "
                "--corpus_dir to use it, or move it away"
            )
