"""The training cuts, held in memory or read line by line."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from lhotse.cut import Cut

from arkasr.config.schema import DataConfig
from arkasr.data.blocks import FileBlocks
from arkasr.data.checks import Rules
from arkasr.data.clips import ClipReader, Selection
from arkasr.data.epochs import Keep, Manifest
from arkasr.data.lazy_cut import LazyCut, text_bytes
from arkasr.data.lines import LINE_SUFFIXES
from arkasr.data.manifests import Clips, checked_files, corpus_hours, no_cuts, shards, untranscribed, with_corpus
from arkasr.data.mix import is_mix
from arkasr.data.mixing import open_mix, turn
from arkasr.data.order import epoch_order
from arkasr.data.reasons import NO_TEXT, WITHOUT_TEXT, refusal
from arkasr.errors import UserError
from arkasr.utils.console import log

LARGE = 64 * 2**20  # bytes of all manifests, about 600,000 cuts: `data.lazy=auto` reads these and larger ones by line


def open_manifest(config: DataConfig, prefix: str = "", needs_text: bool = True) -> Manifest:
    """Open the training cuts, in memory or line by line as `data.lazy` requests.

    Args:
        config: The section `data`.
        prefix: Put before the ids of the clips.
        needs_text: Refuse clips without transcript, see `arkasr.data.checks.Rules`.

    Returns:
        The clips that `min_clip_seconds`, `max_clip_seconds` and `hours` select.

    Raises:
        UserError: If there is no manifest, it cannot be read as requested, or it has no suitable cut.
    """
    if is_mix(config.train):
        return open_mix(config, partial(open_manifest, needs_text=needs_text))
    files = shards(config.train)
    large = sum(file.stat().st_size for file in files) >= LARGE
    by_line = all(file.name.endswith(LINE_SUFFIXES) for file in files)
    if config.lazy == "always" and not by_line:
        raise UserError(f"{config.train}: only .jsonl and .jsonl.gz can be read line by line; set data.lazy=never")
    lazy = config.lazy == "always" or (config.lazy == "auto" and large and by_line)
    rules = replace(Rules.of(config, needs_text), prefix=prefix)
    if lazy:
        if needs_text:  # other manifests show it while they are read
            _require_transcripts(config, *untranscribed(config.train))
        return OnDisk(config, rules)
    manifest = InMemory(config, rules)
    _require_transcripts(config, manifest.reader.tally.refused[NO_TEXT], manifest.reader.tally.kept)
    return manifest


class InMemory:
    """A manifest held as one list, for small corpora. Each clip is one shard, so an epoch can be permuted.

    The lengths lie beside the list. Loader processes that deal clips therefore touch the cuts of their own batches
    only, and the system does not copy the others for them.

    Args:
        config: The section `data`. `hours` draws clips at random with a fixed seed.
        rules: How to read the cuts. None: as the configuration sets it.

    Raises:
        UserError: If there is no manifest, one line is not a cut, an id comes twice, or no clip can be used.
    """

    def __init__(self, config: DataConfig, rules: Rules | None = None):
        rules = rules or Rules.of(config)
        clips = Clips(config.train, rules, Selection.of(config))
        self.cuts = _random_subset(list(clips), config.hours)
        self.num_shards = len(self.cuts)
        self._seconds = array("d", (cut.duration for cut in self.cuts))
        self._text_bytes = array("q", (text_bytes(one.text for one in cut.supervisions) for cut in self.cuts))
        self._turns = array("Q", (turn(cut.id) for cut in self.cuts if rules.prefix))  # only a mix needs them
        (self.reader,) = clips.readers
        _require_usable(config, self.reader, iter(self.cuts))
        if len(self.cuts) < (total := self.reader.tally.kept):
            log(f"{config.train}: {total - len(self.cuts)} of {total} cuts left out by data.hours={config.hours:g}")

    def read(self, shard: int, line: int, keep: Keep | None = None) -> Iterator[tuple[int, LazyCut]]:
        """See `Manifest.read`."""
        if line == 0 and (keep is None or keep(self._turns[shard])):
            yield 0, LazyCut(self._seconds[shard], self._text_bytes[shard], partial(self.cuts.__getitem__, shard))

    def epoch(self, seed: int, number: int) -> tuple[InMemory, list[int]]:
        """See `Manifest.epoch`."""
        return self, epoch_order(seed, number, self.num_shards)

    def seconds(self, exact: bool = True) -> float:
        """See `Manifest.seconds`. Always exact."""
        return math.fsum(self._seconds)


class OnDisk:
    """Shards that are read line by line in every epoch, so memory hardly grows with the corpus.

    Shards are blocks of lines (see `arkasr.data.blocks`). Finding them needs one pass over all files.

    `data.hours` keeps the clips whose hashed ids are below a threshold, which gives about that many hours. The
    threshold needs one pass over all lines. Clips that are left out are counted while lines are read for the first
    time. Repeated ids are not noticed.

    Args:
        config: The section `data`.
        rules: See `InMemory`.

    Raises:
        UserError: If there is no manifest, if it has an invalid line, or if no clip is selected that can be used.
    """

    def __init__(self, config: DataConfig, rules: Rules | None = None):
        files, self.hours = checked_files(config.train), config.hours
        rules = with_corpus(config.train, rules or Rules.of(config))
        blocks, selection = FileBlocks(files), Selection.of(config)
        self.num_shards = len(blocks)
        if config.hours > 0:
            seconds = ClipReader(config.train, blocks, rules, selection).seconds()
            selection = replace(selection, hours=config.hours, share=config.hours * 3600 / max(seconds, 1e-9))
        self.reader = ClipReader(config.train, blocks, rules, selection)
        clips = (clip for shard in range(self.num_shards) for _, clip in self.reader.read(shard))
        _require_usable(config, self.reader, clips)
        log(f"{config.train}: read line by line (data.lazy), {len(files)} files in {self.num_shards} blocks")
        if long := blocks.longer_than(config.buffer_clips):
            log(
                f"warning: {long}: compressed as one block of more than data.buffer_clips={config.buffer_clips} lines; "
                "clips are shuffled only among that many neighbours; decompress the file (gunzip), or write it with "
                "arkasr.data.blocks.write_cuts, to shuffle all of it"
            )

    def read(self, shard: int, line: int, keep: Keep | None = None) -> Iterator[tuple[int, LazyCut]]:
        """See `Manifest.read`.

        Raises:
            UserError: If the shard has an invalid line or is truncated.
        """
        return self.reader.read_lazily(shard, line, keep)

    def epoch(self, seed: int, number: int) -> tuple[OnDisk, list[int]]:
        """See `Manifest.epoch`."""
        return self, epoch_order(seed, number, self.num_shards)

    def seconds(self, exact: bool = True) -> float:
        """See `Manifest.seconds`. The estimate is `data.hours`, or else the hours in `corpus.json`, if it has them."""
        known = 0.0 if exact else self.hours or corpus_hours(self.reader.path)
        return 3600 * known or self.reader.seconds()


def _require_usable(config: DataConfig, reader: ClipReader, clips: Iterator[Cut]) -> None:
    """Check that at least one clip can be used. Reads no further than the first."""
    first = next(clips, None)
    if first is None and not reader.tally.clips:
        raise no_cuts(config.train)
    if first is None:
        raise UserError(
            f"{config.train}: no cut lasts {reader.selection.limits}, or data.hours selects none; change these keys"
        )
    if refusal(first) and all(refusal(clip) for clip in clips):
        advice = WITHOUT_TEXT if reader.tally.refused[NO_TEXT] else "correct the manifest"
        raise UserError(f"{config.train}: no cut can be used: {reader.tally.reasons()}; {advice}")


def _require_transcripts(config: DataConfig, number: int, total: int) -> None:
    """Refuse a manifest if more clips than may fail have no transcript, but the run needs transcripts."""
    if number > config.max_failed_share * total:
        raise UserError(
            f"{config.train}: {number} of {total} cuts have no transcript, which supervised training and "
            f"references need; {WITHOUT_TEXT}"
        )


def _random_subset(cuts: list[Cut], hours: float) -> list[Cut]:
    """Draw `hours` of audio with a fixed seed. 0: all."""
    if hours <= 0:
        return cuts
    order = sorted(cuts, key=lambda cut: cut.id)  # the subset does not depend on the order of the manifest
    random.Random(0).shuffle(order)
    kept, seconds = [], 0.0
    for cut in order:
        if seconds >= hours * 3600:
            break
        kept.append(cut)
        seconds += cut.duration
    return kept
