"""Manifests of cuts: one file, many shards or a Shar folder."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut

from arkasr.data import shar
from arkasr.data.blocks import WHOLE
from arkasr.data.checks import Rules
from arkasr.data.clips import ClipReader, Selection
from arkasr.data.lines import LINE_SUFFIXES
from arkasr.data.mix import Leaf, is_mix, leaves, read_mix
from arkasr.errors import UserError
from arkasr.utils.files import read_json, sha256


def shards(path: str) -> list[Path]:
    """List the files of a manifest.

    Args:
        path: One file, a folder of .jsonl(.gz) shards, a folder in the format Lhotse Shar, a pattern of files or
            folders such as `train.*.gz`, or a mix (see `arkasr.data.mix`).

    Returns:
        The files, sorted. Of a Shar folder, the files with cuts. Of a mix, the files of its members.

    Raises:
        UserError: If there is none, or a file is a link to nothing.
    """
    if is_mix(path):
        return [file for leaf in leaves(path) for file in shards(leaf.path)]
    places = [Path(path)] if Path(path).exists() else [Path(found) for found in sorted(glob.glob(path))]
    files = sorted(file for place in places for file in (_in_folder(place) if place.is_dir() else [place]))
    if not files:
        what = "holds no .jsonl or .jsonl.gz files" if any(place.is_dir() for place in places) else "no such manifest"
        raise UserError(
            f"{path}: {what}; run the recipe from --stage 1 (stage 2 writes teacher data), or correct the path"
        )
    for file in files:
        if not file.exists():
            raise UserError(
                f"{file}: a link to {file.readlink()}, which does not exist; copy that file, or remove the link"
            )
    return files


def _in_folder(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.name.endswith(LINE_SUFFIXES) and not file.name.startswith(".")]
    return [file for file in files if shar.CUTS_FILE.fullmatch(file.name)] if shar.is_shar(folder) else files


def read_cuts(path: str, rules: Rules | None = None) -> CutSet:
    """Open a manifest. Its cuts are read and checked again in every iteration.

    Args:
        path: See `shards`.
        rules: How to read cuts that leave something open, such as their language. `corpus.json` beside the manifest
            has precedence.

    Returns:
        The clips of all its files (see `arkasr.data.checks`), also those that cannot be used.

    Raises:
        UserError: If there is no file or no cut, or if a file cannot be read. While iterating: if one line is not a
            cut, or an id comes twice.
    """
    cuts = CutSet(Clips(path, rules or Rules()))
    if next(iter(cuts), None) is None:
        raise no_cuts(path)
    return cuts


def no_cuts(path: str) -> UserError:
    """Say that a manifest holds no cuts.

    Args:
        path: The manifest.

    Returns:
        The error to raise.
    """
    if is_empty_set(path):
        return UserError(
            f"{path}: holds no cuts, because the corpus has none for this set; name parts or uses for it in "
            "corpus.yaml (train, dev, test, use), see dropped.jsonl for what was dropped, and run from --stage 1"
        )
    return UserError(f"{path}: holds no cuts; see dropped.jsonl beside it for the reasons, or write it again")


class Clips:
    """The clips of all files of a manifest or mix, as an iterable that reads them each time. Refuses repeated ids.

    Args:
        path: See `shards`.
        rules: See `read_cuts`.
        selection: The clips to use. None: all.

    Attributes:
        readers: Read the clips of each member of a mix, or those of a single manifest, and count them.
    """

    def __init__(self, path: str, rules: Rules, selection: Selection | None = None):
        self.path, self.readers = path, [_reader(leaf, rules, selection or Selection()) for leaf in leaves(path)]

    def __iter__(self) -> Iterator[Cut]:
        seen: set[str] = set()
        repeated, first = 0, ""
        for reader in self.readers:
            for index, (file, _) in enumerate(reader.parts):
                for number, clip in reader.read(index):
                    if clip.id in seen:
                        repeated, first = repeated + 1, first or f"{clip.id} in {file}, line {number + 1}"
                    seen.add(clip.id)
                    yield clip
            if not reader.tally.clips and is_mix(self.path):
                raise no_cuts(reader.path)
        if repeated:
            raise UserError(
                f"{self.path}: {repeated} cuts repeat the id of another cut, the first is {first}; give each cut its "
                "own id, and name no file twice"
            )


def _reader(leaf: Leaf, rules: Rules, selection: Selection) -> ClipReader:
    parts = [(file, WHOLE) for file in checked_files(leaf.path)]
    own = replace(with_corpus(leaf.path, rules), prefix=f"{rules.prefix}{leaf.prefix}")
    return ClipReader(leaf.path, parts, own, selection)


def checked_files(path: str) -> list[Path]:
    """List the files of a manifest, and check that Shar folders are complete.

    Args:
        path: See `shards`.

    Returns:
        The files, see `shards`.

    Raises:
        UserError: See `shards`, or a file with audio is missing.
    """
    files = shards(path)
    shar.require_audio(files)
    return files


def with_corpus(path: str, rules: Rules) -> Rules:
    """Take the language from `corpus.json` in the folder of a manifest or, of a folder of shards, beside that folder.

    Args:
        path: See `shards`.
        rules: The rules of the configuration.

    Returns:
        The rules, with the language of `corpus.json` if there is one.

    Raises:
        UserError: `corpus.json` is broken.
    """
    for file, corpus in _corpora(path):
        language = corpus.get("language")
        if isinstance(language, str) and language:
            return replace(rules, language=language, language_from=str(file))
    return rules


def corpus_hours(path: str) -> float:
    """Return the hours that `corpus.json` states for a manifest.

    Args:
        path: See `shards`.

    Returns:
        Hours of all cuts of the set, before clips are left out by length. 0 if they are not known.

    Raises:
        UserError: `corpus.json` is broken.
    """
    for described in _descriptions(path):
        hours = described.get("hours")
        if isinstance(hours, int | float) and hours > 0:
            return float(hours)
    return 0.0


def is_empty_set(path: str) -> bool:
    """Return whether stage 1 has left a set empty, because the corpus has no cuts for it.

    Args:
        path: See `shards`.

    Returns:
        True if `corpus.json` names it so. False if there is none that describes the set.

    Raises:
        UserError: `corpus.json` is broken.
    """
    return any(described.get("cuts") == 0 for described in _descriptions(path))


def untranscribed(path: str) -> tuple[int, int]:
    """Return how many cuts of a set have no transcript, as `corpus.json` states it.

    Args:
        path: See `shards`.

    Returns:
        This number and that of all cuts, both 0 if they are not known.

    Raises:
        UserError: `corpus.json` is broken.
    """
    for described in _descriptions(path):
        found = (described.get("untranscribed"), described.get("cuts"))
        if all(isinstance(number, int) for number in found):
            return found  # type: ignore[return-value]
    return 0, 0


def _descriptions(path: str) -> Iterator[dict[str, Any]]:
    """Yield the facts of the set in each `corpus.json` beside a manifest."""
    name = Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
    for _, corpus in _corpora(path):
        yield (corpus.get("sets") or {}).get(name) or {}


def _corpora(path: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each `corpus.json` beside a manifest, with its content."""
    beside = list(dict.fromkeys(file.parent for file in shards(path)))
    folders = [*beside, Path(path).absolute().parent] if Path(path).is_dir() else beside
    for file in (folder / "corpus.json" for folder in folders):
        if file.is_file():
            yield file, read_json(file, "delete it and run the recipe from --stage 1")


def digest(path: str) -> str:
    """Return the SHA-256 digest over all files of a manifest. No audio is read.

    Args:
        path: See `shards`. Of a Shar folder, the digest covers the files with cuts, and names and sizes of tar files.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: If there is no file.
    """
    if is_mix(path):
        return _mix_digest(path)
    total, files = hashlib.sha256(), shards(path)
    with_audio = {folder for folder in {file.parent for file in files} if shar.is_shar(folder)}
    for file in files:
        total.update(bytes.fromhex(sha256(file)))
        if file.parent in with_audio and (tar := shar.audio_of(file)).is_file():
            total.update(f"{tar.name} {tar.stat().st_size}\n".encode())
    return total.hexdigest()


def _mix_digest(path: str) -> str:
    """Return the digest of what determines the batches of a mix: names, weights, known hours, and each manifest."""
    leaves(path)  # checks all of it
    total = hashlib.sha256()
    for member in read_mix(path):
        hours = [corpus_hours(leaf.path) for leaf in leaves(member.path)] if member.weight else []
        total.update(f"{member.name} {member.weight} {hours} {digest(member.path)}\n".encode())
    return total.hexdigest()
