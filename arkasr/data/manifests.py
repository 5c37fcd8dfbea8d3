"""Manifests of training cuts, one file or many shards, held in memory or read line by line."""

from __future__ import annotations

import glob
import hashlib
import random
from collections.abc import Iterator
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.lazy import LazyIteratorChain
from lhotse.serialization import decode_json_line, deserialize_item, open_best

from arkasr.config.schema import DataConfig
from arkasr.errors import UserError
from arkasr.utils.console import log
from arkasr.utils.files import sha256

LINE_SUFFIXES = (".jsonl", ".jsonl.gz")  # formats that can be read line by line
LARGE = 64 * 2**20  # bytes of all manifests, about 600,000 cuts: `data.lazy=auto` reads these and larger ones by line


class Manifest(Protocol):
    """The cuts of one epoch: numbered shards, each a fixed sequence of lines.

    Attributes:
        num_shards: Number of shards.
    """

    num_shards: int

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """Yield the selected cuts of one shard.

        Args:
            shard: Number of the shard, from 0.
            line: First line to read, from 0.

        Yields:
            Line number and cut.
        """
        ...


def shards(path: str) -> list[Path]:
    """List the files of a manifest.

    Args:
        path: One file, a folder of .jsonl(.gz) shards, or a pattern such as `train.*.gz`.

    Returns:
        The files, sorted.

    Raises:
        UserError: If there is none.
    """
    place = Path(path)
    if place.is_dir():
        found = [file for file in place.iterdir() if file.name.endswith(LINE_SUFFIXES)]
    else:
        found = [place] if place.is_file() else [Path(file) for file in glob.glob(path)]
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise UserError(
            f"{path}: no such manifest; run the recipe from --stage 1 (stage 2 writes teacher data), or "
            "correct the path"
        )
    return files


def read_cuts(path: str) -> CutSet:
    """Open a manifest.

    Args:
        path: See `shards`.

    Returns:
        The cuts of all its files.

    Raises:
        UserError: If there is no file, or no cut in any of them.
    """
    opened = [CutSet.from_file(file) for file in shards(path)]
    opened = [cuts for cuts in opened if cuts is not None]  # Lhotse returns None for an empty file
    cuts = opened[0] if len(opened) == 1 else CutSet(LazyIteratorChain(*opened))
    if next(iter(cuts), None) is None:
        raise UserError(f"{path}: holds no cuts; see dropped.jsonl beside it for the reasons")
    return cuts


def open_manifest(config: DataConfig) -> Manifest:
    """Open the training cuts, in memory or line by line as `data.lazy` requests.

    Args:
        config: The section `data`.

    Returns:
        The cuts that `min_clip_seconds`, `max_clip_seconds` and `hours` select.

    Raises:
        UserError: If there is no manifest, it cannot be read as requested, or it has no suitable cut.
    """
    files = shards(config.train)
    large = sum(file.stat().st_size for file in files) >= LARGE
    by_line = all(file.name.endswith(LINE_SUFFIXES) for file in files)
    if config.lazy == "always" and not by_line:
        raise UserError(f"{config.train}: only .jsonl and .jsonl.gz can be read line by line; set data.lazy=never")
    lazy = config.lazy == "always" or (config.lazy == "auto" and large and by_line)
    return OnDisk(config) if lazy else InMemory(config)


class InMemory:
    """A manifest held as one list, for small corpora. All its files form one shard.

    Args:
        config: The section `data`. `hours` draws clips at random with a fixed seed.

    Raises:
        UserError: If there is no manifest or no cut of suitable length.
    """

    num_shards = 1

    def __init__(self, config: DataConfig):
        self.cuts = _random_subset(_of_suitable_length(config), config.hours)

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """See `Manifest.read`."""
        return enumerate(islice(self.cuts, line, None), line)


class OnDisk:
    """Shards that are read line by line in every epoch, so memory does not grow with the corpus.

    `data.hours` keeps the clips whose hashed ids are below a threshold, which gives about that many hours. The
    threshold needs one pass over all lines.

    Args:
        config: The section `data`.

    Raises:
        UserError: If there is no manifest, if it has an invalid line, or if no cut is selected.
    """

    def __init__(self, config: DataConfig):
        self.config, self.files, self.share = config, shards(config.train), 1.0
        self.num_shards = len(self.files)
        if config.hours > 0:
            seconds = sum(_duration(item) for file in self.files for _, item in self._items(file, 0))
            self.share = config.hours * 3600 / max(seconds, 1e-9)
        self._check()
        log(f"{config.train}: read line by line (data.lazy); number of files: {self.num_shards}")

    def _check(self) -> None:
        items = (item for file in self.files for item in self._items(file, 0))
        if next(items, None) is None:
            raise UserError(
                f"{self.config.train}: no cut lasts {_limits(self.config)}, or data.hours selects none; change these "
                "keys"
            )

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """See `Manifest.read`.

        Raises:
            UserError: If the shard has an invalid line or is truncated.
        """
        file = self.files[shard]
        for number, item in self._items(file, line):
            try:
                yield number, deserialize_item(item)
            except (KeyError, TypeError, ValueError) as error:
                raise _not_a_cut(file, number) from error

    def _items(self, file: Path, line: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the selected lines as dictionaries. Making cuts of them would take as long again."""
        low, high = self.config.min_clip_seconds, self.config.max_clip_seconds
        for number, text in _lines(file, line):
            try:
                item = decode_json_line(text)
                selected = low <= _duration(item) <= high and _in_share(item["id"], self.share)
            except (KeyError, TypeError, ValueError) as error:
                raise _not_a_cut(file, number) from error
            if selected:
                yield number, item


def _lines(file: Path, start: int) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file from `start`. Earlier lines are read, but not parsed."""
    try:
        with open_best(file) as lines:
            yield from islice(enumerate(lines), start, None)
    except EOFError as error:
        raise UserError(f"{file}: the file is truncated; write this shard again") from error


def _not_a_cut(file: Path, number: int) -> UserError:
    return UserError(f"{file}: line {number + 1} is not a cut; write this shard again")


def _duration(item: dict[str, Any]) -> float:
    if "duration" in item:
        return item["duration"]
    return deserialize_item(deepcopy(item)).duration  # a mixed cut. deserialize_item changes its argument


def _in_share(name: str, share: float) -> bool:
    return share >= 1 or int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < share * 2**64


def _limits(config: DataConfig) -> str:
    low, high = config.min_clip_seconds, config.max_clip_seconds
    return f"between {low:g} and {high:g} s (data.min_clip_seconds, data.max_clip_seconds)"


def _of_suitable_length(config: DataConfig) -> list[Cut]:
    """Return the cuts between the configured lengths, and log the number of the others."""
    cuts = list(read_cuts(config.train))
    kept = [cut for cut in cuts if config.min_clip_seconds <= cut.duration <= config.max_clip_seconds]
    if not kept:
        raise UserError(f"{config.train}: no cut lasts {_limits(config)}; change these limits")
    if len(kept) < len(cuts):
        left_out = f"{len(cuts) - len(kept)} of {len(cuts)} cuts left out"
        log(f"{config.train}: {left_out}, because they do not last {_limits(config)}")
    return kept


def _random_subset(cuts: list[Cut], hours: float) -> list[Cut]:
    """Draw `hours` of audio with a fixed seed. 0: all."""
    if hours <= 0:
        return cuts
    order = list(cuts)
    random.Random(0).shuffle(order)
    kept, seconds = [], 0.0
    for cut in order:
        if seconds >= hours * 3600:
            break
        kept.append(cut)
        seconds += cut.duration
    return kept


def digest(path: str) -> str:
    """Return the SHA-256 digest over all files of a manifest.

    Args:
        path: See `shards`.

    Returns:
        64 hexadecimal digits.

    Raises:
        UserError: If there is no file.
    """
    total = hashlib.sha256()
    for file in shards(path):
        total.update(bytes.fromhex(sha256(file)))
    return total.hexdigest()
