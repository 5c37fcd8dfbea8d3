"""Batches of clips from Lhotse cuts: bucketed by duration, sharded over ranks, resumed at any batch."""

from __future__ import annotations

import random
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arkasr.interfaces import UserError
from arkasr.schema import DataConfig
from arkasr.terminal import log


@dataclass
class Batch:
    """B clips. waveforms: float32 [num_samples] at 16 kHz; languages as the corpus says; num_failed: clips not readable."""

    ids: list[str]
    waveforms: list[Tensor]
    texts: list[str]
    languages: list[str]
    num_failed: int = 0

    @property
    def seconds(self) -> float:
        """Audio seconds in the batch."""
        return sum(len(w) for w in self.waveforms) / 16000

    def select(self, clips: list[int]) -> Batch:
        """Return the batch of the clips at these places."""
        pick = lambda items: [items[i] for i in clips]  # noqa: E731
        return Batch(pick(self.ids), pick(self.waveforms), pick(self.texts), pick(self.languages), self.num_failed)


def read_cuts(path: str) -> CutSet:
    """Open a manifest of cuts. Raises UserError where it is absent or holds nothing."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such manifest; run the recipe from --stage 1 (and stage 2 for teacher data)")
    cuts = CutSet.from_file(path)
    if next(iter(cuts), None) is None:
        raise UserError(f"{path}: holds no cuts; see dropped.jsonl beside it for why")
    return cuts


def load_batch(cuts: CutSet | list[Cut]) -> Batch:
    """Read the audio of some cuts; a clip that cannot be read is left out, counted and named."""
    batch = Batch([], [], [], [])
    for cut in cuts:
        try:
            waveform = torch.from_numpy(cut.load_audio()[0])
            if not (len(waveform) and bool(waveform.isfinite().all())):
                raise ValueError("the audio is empty or not finite")
        except Exception as error:  # any decoder may fail in its own way
            log(f"dropped {cut.id} ({_source(cut)}): {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            batch.num_failed += 1
            continue
        supervision = cut.supervisions[0]
        batch.ids.append(cut.id)
        batch.waveforms.append(waveform)
        batch.texts.append(supervision.text or "")
        batch.languages.append(supervision.language or "English")
    return batch


def _source(cut: Cut) -> str:
    return str(cut.recording.sources[0].source) if cut.has_recording else "no recording"


class _Clips(Dataset):
    """Lhotse's map-style protocol: an index is a batch of cuts."""

    def __getitem__(self, cuts: CutSet) -> Batch:
        return load_batch(cuts)

    def __len__(self) -> int:
        raise TypeError("the number of batches is not known ahead")


class _From:
    """The batches of one epoch after the first `skip`: replays cuts, not audio."""

    def __init__(self, sampler: DynamicBucketingSampler, skip: int):
        self.sampler, self.skip = sampler, skip

    def __iter__(self) -> Iterator[CutSet]:
        for number, cuts in enumerate(self.sampler):
            if number >= self.skip:
                yield cuts


class TrainingBatches:
    """Endless batches. `epoch` and `consumed` say where the next batch comes from and are what a checkpoint keeps.

    Each epoch is shuffled by seed and epoch alone; every rank takes its own batch of each group, so all have equally
    many. Loader workers run ahead, which is why the position counts batches handed out, not batches sampled.
    """

    def __init__(self, config: DataConfig, seed: int, rank: int = 0, world_size: int = 1):
        self.config, self.seed, self.rank, self.world_size = config, seed, rank, world_size
        low, high = config.min_clip_seconds, config.max_clip_seconds
        cuts = read_cuts(config.train).filter(lambda c: low <= c.duration <= high).to_eager()
        if len(cuts) == 0:
            raise UserError(f"{config.train}: no cut lasts between {low} and {high} s (data.min/max_clip_seconds)")
        self.cuts = _subset(cuts, config.hours)
        self.epoch = self.consumed = 0

    def _sampler(self) -> DynamicBucketingSampler:
        buckets = max(1, min(self.config.num_buckets, len(self.cuts) // 2))
        sampler = DynamicBucketingSampler(
            self.cuts, max_duration=self.config.max_seconds, max_cuts=self.config.max_cuts, num_buckets=buckets, shuffle=True,
            seed=self.seed, rank=self.rank, world_size=self.world_size, drop_last=False)
        sampler.set_epoch(self.epoch)
        return sampler

    def __iter__(self) -> Iterator[Batch]:
        while True:
            loader = DataLoader(_Clips(), sampler=_From(self._sampler(), self.consumed), batch_size=None,
                                num_workers=self.config.num_workers, collate_fn=None)
            for batch in loader:
                self.consumed += 1
                yield batch
            self.epoch, self.consumed = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Return the position after the last batch handed out."""
        return {"epoch": self.epoch, "consumed": self.consumed, "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Carry on after that position; at another number of ranks the epoch is carried on at the nearest batch."""
        self.epoch = state["epoch"]
        self.consumed = state["consumed"] * state["world_size"] // self.world_size


def _subset(cuts: CutSet, hours: float) -> CutSet:
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
    return CutSet.from_cuts(kept)


def evaluation_batches(path: str, max_seconds: float, done: Container[str] = ()) -> Iterator[Batch]:
    """Yield every cut of a manifest once but those whose ids are done, longest first: memory runs out at once or never."""
    pending: list[Cut] = []
    for cut in sorted((c for c in read_cuts(path) if c.id not in done), key=lambda c: (-c.duration, c.id)):
        if pending and pending[0].duration * (len(pending) + 1) > max_seconds:
            yield load_batch(pending)
            pending = []
        pending.append(cut)
    if pending:
        yield load_batch(pending)
