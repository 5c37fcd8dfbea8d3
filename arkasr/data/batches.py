"""Batches of waveforms and transcripts, read from Lhotse cuts. Unreadable clips are dropped and counted."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor

from arkasr.data.manifests import read_cuts
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.console import log


@dataclass
class Batch:
    """B clips.

    Attributes:
        ids: Cut ids, length B.
        waveforms: Audio of each clip, float32 [num_samples] at 16 kHz.
        texts: Transcript of each clip. Empty if the cut has none.
        languages: Language of each clip as in the manifest. English if the cut has none.
        num_failed: Number of clips that could not be read and are not among the B.
        last_failed: Id, source and error of the last clip that could not be read. Empty if there is none.
    """

    ids: list[str]
    waveforms: list[Tensor]
    texts: list[str]
    languages: list[str]
    num_failed: int = 0
    last_failed: str = ""

    @property
    def seconds(self) -> float:
        """Total audio in seconds."""
        return sum(len(w) for w in self.waveforms) / SAMPLE_RATE

    def select(self, clips: list[int]) -> Batch:
        """Return a batch with some of the clips.

        Args:
            clips: Indices of the clips, from 0 to B - 1, in the order wanted.

        Returns:
            The selected clips, with the counts of failed clips of this batch.
        """
        pick = lambda items: [items[i] for i in clips]  # noqa: E731
        picked = pick(self.ids), pick(self.waveforms), pick(self.texts), pick(self.languages)
        return Batch(*picked, self.num_failed, self.last_failed)


# The batch of a rank that has no readable clip. The rank computes it so that other ranks do not wait, and discards the
# result.
SILENCE = Batch(["silence"], [torch.zeros(SAMPLE_RATE // 2)], [""], ["English"])


def load_batch(cuts: CutSet | list[Cut]) -> Batch:
    """Read the audio of cuts. Drop, count and log the clips that cannot be read.

    Args:
        cuts: 16 kHz cuts with one channel and a supervision.

    Returns:
        The readable clips, in the order of the cuts.
    """
    batch = Batch([], [], [], [])
    for cut in cuts:
        try:
            waveform, supervision = _waveform(cut), cut.supervisions[0]
        except Exception as error:  # every decoder has its own exceptions
            batch.num_failed, batch.last_failed = batch.num_failed + 1, f"{cut.id} ({_source(cut)}): {_reason(error)}"
            log(f"dropped {batch.last_failed}", on_every_rank=True)
            continue
        batch.ids.append(cut.id)
        batch.waveforms.append(waveform)
        batch.texts.append(supervision.text or "")
        batch.languages.append(supervision.language or "English")
    return batch


def _waveform(cut: Cut) -> Tensor:
    """Read one clip, float32 [num_samples]. Raises ValueError if the models cannot take it."""
    if cut.sampling_rate != SAMPLE_RATE:
        raise ValueError(f"{cut.sampling_rate} Hz, must be {SAMPLE_RATE}: prepare the corpus again or resample the cut")
    channels = torch.from_numpy(cut.load_audio())
    if len(channels) != 1:
        raise ValueError(f"{len(channels)} channels, must be 1: choose one of them in the manifest, or mix them down")
    if not (channels.numel() and bool(channels.isfinite().all())):
        raise ValueError("the audio is empty or not finite")
    if not cut.supervisions:
        raise ValueError("the cut has no supervision, so neither text nor language")
    return channels[0]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _source(cut: Cut) -> str:
    return str(cut.recording.sources[0].source) if cut.has_recording else "no recording"


def evaluation_batches(path: str, max_seconds: float, done: Container[str] = ()) -> Iterator[Batch]:
    """Yield every cut of a manifest once, longest first, so that running out of memory shows in the first batch.

    Args:
        path: Manifest, see `arkasr.data.manifests.shards`.
        max_seconds: Largest padded duration of one batch: longest clip times number of clips, in seconds. A longer
            clip forms its own batch.
        done: Ids of cuts to leave out.

    Yields:
        The batches.
    """
    pending: list[Cut] = []
    for cut in sorted((c for c in read_cuts(path) if c.id not in done), key=lambda c: (-c.duration, c.id)):
        if pending and pending[0].duration * (len(pending) + 1) > max_seconds:
            yield load_batch(pending)
            pending = []
        pending.append(cut)
    if pending:
        yield load_batch(pending)
