"""Manifests of cuts, one file or many shards: read whole into memory, or line by line where they are large."""

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

LINES = (".jsonl", ".jsonl.gz")  # what can be read line by line
LARGE = 64 * 2**20  # bytes of manifests, about 600,000 cuts: from here on `data.lazy=auto` reads line by line


class Manifest(Protocol):
    """Where an epoch's cuts come from: numbered shards, each a fixed sequence of lines."""

    num_shards: int

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """Yield the wanted cuts of a shard from a line on, each with the number of its line."""
        ...


def shards(path: str) -> list[Path]:
    """List the files that a path names: a manifest, a folder of .jsonl(.gz) shards, or a pattern such as train.*.gz.

    Raises UserError where there is none.
    """
    place = Path(path)
    found = [p for p in place.iterdir() if p.name.endswith(LINES)] if place.is_dir() else map(Path, glob.glob(path))
    files = sorted([place] if place.is_file() else (p for p in found if p.is_file()))
    if not files:
        raise UserError(f"{path}: no such manifest; run the recipe from --stage 1 (and stage 2 for teacher data)")
    return files


def read_cuts(path: str) -> CutSet:
    """Open a manifest of cuts, or several (`shards`). Raises UserError where there is none or it holds nothing."""
    opened = [CutSet.from_file(file) for file in shards(path)]
    opened = [cuts for cuts in opened if cuts is not None]  # None is Lhotse's word for an empty file
    cuts = opened[0] if len(opened) == 1 else CutSet(LazyIteratorChain(*opened))
    if next(iter(cuts), None) is None:
        raise UserError(f"{path}: holds no cuts; see dropped.jsonl beside it for why")
    return cuts


def open_manifest(config: DataConfig) -> Manifest:
    """Open what a run trains on, as `data.lazy` says. Raises UserError where nothing is there or nothing is left."""
    files = shards(config.train)
    large = sum(file.stat().st_size for file in files) >= LARGE
    by_line = all(file.name.endswith(LINES) for file in files)
    if config.lazy == "always" and not by_line:
        raise UserError(f"{config.train}: only .jsonl and .jsonl.gz can be read line by line; set data.lazy=never")
    lazy = config.lazy == "always" or (config.lazy == "auto" and large and by_line)
    return OnDisk(config) if lazy else InMemory(config)


class InMemory:
    """A manifest, or all its shards as one, held as a list: what a small corpus needs."""

    num_shards = 1

    def __init__(self, config: DataConfig):
        self.cuts = _subset(_of_length(config), config.hours)

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """See Manifest; there is one shard."""
        return enumerate(islice(self.cuts, line, None), line)


class OnDisk:
    """Shards read line by line, each time anew: memory does not grow with the corpus.

    `data.hours` keeps the clips whose hashed ids lie below a bound, which is about so many hours; finding the bound
    takes one pass over all lines.
    """

    def __init__(self, config: DataConfig):
        self.config, self.files, self.share = config, shards(config.train), 1.0
        self.num_shards = len(self.files)
        if config.hours > 0:
            seconds = sum(_duration(item) for file in self.files for _, item in self._items(file, 0))
            self.share = config.hours * 3600 / max(seconds, 1e-9)
        self._check()
        log(f"{config.train}: read line by line from {self.num_shards} files (data.lazy)")

    def _check(self) -> None:
        items = (item for file in self.files for item in self._items(file, 0))
        if next(items, None) is None:
            raise UserError(f"{self.config.train}: no cut lasts {_lengths(self.config)}, or data.hours leaves none")

    def read(self, shard: int, line: int) -> Iterator[tuple[int, Cut]]:
        """See Manifest. Raises UserError at a line that is no cut."""
        file = self.files[shard]
        for number, item in self._items(file, line):
            try:
                yield number, deserialize_item(item)
            except (KeyError, TypeError, ValueError) as error:
                raise _no_cut(file, number) from error

    def _items(self, file: Path, line: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the wanted lines parsed, but not yet made into cuts, which takes as long again."""
        low, high = self.config.min_clip_seconds, self.config.max_clip_seconds
        for number, text in _lines(file, line):
            try:
                item = decode_json_line(text)
                wanted = low <= _duration(item) <= high and _hashed(item["id"], self.share)
            except (KeyError, TypeError, ValueError) as error:
                raise _no_cut(file, number) from error
            if wanted:
                yield number, item


def _lines(file: Path, start: int) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file from one on, with their numbers; those before it are read but not parsed."""
    try:
        with open_best(file) as lines:
            yield from islice(enumerate(lines), start, None)
    except EOFError as error:
        raise UserError(f"{file}: was cut short; write this shard anew") from error


def _no_cut(file: Path, number: int) -> UserError:
    return UserError(f"{file}: line {number + 1} is not a cut; write this shard anew")


def _duration(item: dict[str, Any]) -> float:
    if "duration" in item:
        return item["duration"]
    return deserialize_item(deepcopy(item)).duration  # of a mixed cut; it takes its argument apart


def _hashed(name: str, share: float) -> bool:
    return share >= 1 or int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) < share * 2**64


def _lengths(config: DataConfig) -> str:
    low, high = config.min_clip_seconds, config.max_clip_seconds
    return f"between {low:g} and {high:g} s (data.min_clip_seconds, data.max_clip_seconds)"


def _of_length(config: DataConfig) -> list[Cut]:
    """Keep the cuts that last as long as the config wants, and say how many do not."""
    cuts = list(read_cuts(config.train))
    kept = [cut for cut in cuts if config.min_clip_seconds <= cut.duration <= config.max_clip_seconds]
    if not kept:
        raise UserError(f"{config.train}: no cut lasts {_lengths(config)}")
    if len(kept) < len(cuts):
        left_out = f"{len(cuts) - len(kept)} of {len(cuts)} cuts left out"
        log(f"{config.train}: {left_out}: they do not last {_lengths(config)}")
    return kept


def _subset(cuts: list[Cut], hours: float) -> list[Cut]:
    """Keep `hours` of audio drawn at random with a fixed seed (0: all)."""
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
