"""Batches of clips: waveforms and transcripts read from Lhotse cuts; what cannot be read is left out and counted."""

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
    """B clips. waveforms: float32 [num_samples] at 16 kHz; languages as the corpus says; num_failed: not readable.

    last_failed: which clip could not be read, from where and why; empty where all could.
    """

    ids: list[str]
    waveforms: list[Tensor]
    texts: list[str]
    languages: list[str]
    num_failed: int = 0
    last_failed: str = ""

    @property
    def seconds(self) -> float:
        """Audio seconds in the batch."""
        return sum(len(w) for w in self.waveforms) / SAMPLE_RATE

    def select(self, clips: list[int]) -> Batch:
        """Return the batch of the clips at these places."""
        pick = lambda items: [items[i] for i in clips]  # noqa: E731
        picked = pick(self.ids), pick(self.waveforms), pick(self.texts), pick(self.languages)
        return Batch(*picked, self.num_failed, self.last_failed)


# What a rank works on that has no clip, so that the others do not wait for it; the result is thrown away.
SILENCE = Batch(["silence"], [torch.zeros(8000)], [""], ["English"])


def load_batch(cuts: CutSet | list[Cut]) -> Batch:
    """Read the audio of some cuts; a clip that cannot be read is left out, counted and named."""
    batch = Batch([], [], [], [])
    for cut in cuts:
        try:
            waveform, supervision = _waveform(cut), cut.supervisions[0]
        except Exception as error:  # any decoder may fail in its own way
            batch.num_failed, batch.last_failed = batch.num_failed + 1, f"{cut.id} ({_source(cut)}): {_reason(error)}"
            log(f"dropped {batch.last_failed}", on_every_rank=True)
            continue
        batch.ids.append(cut.id)
        batch.waveforms.append(waveform)
        batch.texts.append(supervision.text or "")
        batch.languages.append(supervision.language or "English")
    return batch


def _waveform(cut: Cut) -> Tensor:
    """Read one clip, float32 [num_samples]. Raises ValueError where it is not what the models hear."""
    if cut.sampling_rate != SAMPLE_RATE:
        raise ValueError(f"{cut.sampling_rate} Hz, not {SAMPLE_RATE}: prepare the corpus anew, or resample the cut")
    channels = torch.from_numpy(cut.load_audio())
    if len(channels) != 1:
        raise ValueError(f"{len(channels)} channels: choose one of them in the manifest, or mix them down")
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
    """Yield every cut of a manifest once (but those done), longest first: memory runs out at once or never."""
    pending: list[Cut] = []
    for cut in sorted((c for c in read_cuts(path) if c.id not in done), key=lambda c: (-c.duration, c.id)):
        if pending and pending[0].duration * (len(pending) + 1) > max_seconds:
            yield load_batch(pending)
            pending = []
        pending.append(cut)
    if pending:
        yield load_batch(pending)
