"""Batches of clips from Lhotse cuts: bucketed by duration, sharded over ranks, resumed at any batch."""

from __future__ import annotations

import random
import warnings
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler, DynamicCutSampler
from lhotse.dataset.sampling.base import CutSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arkasr.interfaces import UserError
from arkasr.schema import DataConfig
from arkasr.terminal import log


@dataclass
class Batch:
    """B clips. waveforms: float32 [num_samples] at 16 kHz; languages as the corpus says; num_failed: not readable."""

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


# What a rank works on that has no clip, so that the others do not wait for it; the result is thrown away.
SILENCE = Batch(["silence"], [torch.zeros(8000)], [""], ["English"])


def read_cuts(path: str) -> CutSet:
    """Open a manifest of cuts. Raises UserError where it is absent or holds nothing."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such manifest; run the recipe from --stage 1 (and stage 2 for teacher data)")
    cuts = CutSet.from_file(path)
    if cuts is None or next(iter(cuts), None) is None:  # None is Lhotse's word for an empty file
        raise UserError(f"{path}: holds no cuts; see dropped.jsonl beside it for why")
    return cuts


def load_batch(cuts: CutSet | list[Cut]) -> Batch:
    """Read the audio of some cuts; a clip that cannot be read is left out, counted and named."""
    batch = Batch([], [], [], [])
    for cut in cuts:
        try:
            waveform, supervision = _waveform(cut), cut.supervisions[0]
        except Exception as error:  # any decoder may fail in its own way
            reason = (str(error).splitlines() or [""])[0][:200]
            log(f"dropped {cut.id} ({_source(cut)}): {type(error).__name__}: {reason}")
            batch.num_failed += 1
            continue
        batch.ids.append(cut.id)
        batch.waveforms.append(waveform)
        batch.texts.append(supervision.text or "")
        batch.languages.append(supervision.language or "English")
    return batch


def _waveform(cut: Cut) -> Tensor:
    """Read one clip, float32 [num_samples]. Raises ValueError where it is not what the models hear."""
    if cut.sampling_rate != 16000:
        raise ValueError(f"{cut.sampling_rate} Hz, not 16000: prepare the corpus anew, or resample the cut")
    channels = torch.from_numpy(cut.load_audio())
    if len(channels) != 1:
        raise ValueError(f"{len(channels)} channels: choose one of them in the manifest, or mix them down")
    if not (channels.numel() and bool(channels.isfinite().all())):
        raise ValueError("the audio is empty or not finite")
    if not cut.supervisions:
        raise ValueError("the cut has no supervision, so neither text nor language")
    return channels[0]


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

    def __init__(self, sampler: CutSampler, skip: int):
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
        self.cuts = _subset(_of_length(config), config.hours)
        self.epoch = self.consumed = 0

    def _sampler(self) -> CutSampler:
        buckets = min(self.config.num_buckets, len(self.cuts) // 2)
        kind = partial(DynamicBucketingSampler, num_buckets=buckets) if buckets > 1 else DynamicCutSampler
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using Dynamic.*Sampler with an eagerly read")
            sampler = kind(
                self.cuts,
                max_duration=self.config.max_seconds,
                max_cuts=self.config.max_cuts,
                shuffle=True,
                seed=self.seed,
                rank=self.rank,
                world_size=self.world_size,
                drop_last=False,
            )
        sampler.set_epoch(self.epoch)
        return sampler

    def __iter__(self) -> Iterator[Batch]:
        while True:
            loader = DataLoader(
                _Clips(),
                sampler=_From(self._sampler(), self.consumed),
                batch_size=None,
                num_workers=self.config.num_workers,
                collate_fn=None,
                generator=torch.Generator(),  # its own, so that resuming draws nothing from the run's
            )
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


def _of_length(config: DataConfig) -> CutSet:
    """Keep the cuts that last as long as the config wants, and say how many do not."""
    low, high, cuts = config.min_clip_seconds, config.max_clip_seconds, list(read_cuts(config.train))
    kept = [cut for cut in cuts if low <= cut.duration <= high]
    lengths = f"between {low:g} and {high:g} s (data.min_clip_seconds, data.max_clip_seconds)"
    if not kept:
        raise UserError(f"{config.train}: no cut lasts {lengths}")
    if len(kept) < len(cuts):
        log(f"{config.train}: {len(cuts) - len(kept)} of {len(cuts)} cuts left out: they do not last {lengths}")
    return CutSet.from_cuts(kept)


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
    """Yield every cut of a manifest once (but those done), longest first: memory runs out at once or never."""
    pending: list[Cut] = []
    for cut in sorted((c for c in read_cuts(path) if c.id not in done), key=lambda c: (-c.duration, c.id)):
        if pending and pending[0].duration * (len(pending) + 1) > max_seconds:
            yield load_batch(pending)
            pending = []
        pending.append(cut)
    if pending:
        yield load_batch(pending)
