"""Batches of waveforms and transcripts, read from Lhotse cuts. Clips that cannot be used are dropped and counted."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import torch
from lhotse.cut import Cut
from torch import Tensor

from arkasr.data.audio import read_waveform
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import Failure, Unusable, refusal, source_of
from arkasr.data.waveforms import Waveforms
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.console import log


@dataclass
class Batch:
    """B clips.

    Attributes:
        ids: Cut ids, length B.
        waveforms: Audio of each clip, float32 [num_samples] at 16 kHz. A `Waveforms` object is copied to a device once.
        texts: Transcript of each clip. Empty if the cut has none.
        languages: Language of each clip as in the manifest.
        failures: The clips that cannot be used and are not among the B, each with its source and the kind of reason.
            `arkasr.data.reasons.counts(failure.kind for ...)` counts the kinds for a message.
        drawn: Duration of all clips of the batch in seconds, by the manifest and at the speeds at which they are read.
            Clips that cannot be used count, and copies for ranks without a clip do not.
        covered: The same at the clips' own speed. The clips of one epoch have the duration of the manifest together.
    """

    ids: list[str]
    waveforms: Sequence[Tensor]
    texts: list[str]
    languages: list[str]
    failures: list[Failure] = field(default_factory=list)
    drawn: float = 0.0
    covered: float = 0.0

    @property
    def num_failed(self) -> int:
        """Number of clips that cannot be used."""
        return len(self.failures)

    @property
    def seconds(self) -> float:
        """Total audio in seconds."""
        return sum(len(w) for w in self.waveforms) / SAMPLE_RATE

    def select(self, clips: list[int]) -> Batch:
        """Return a batch with some of the clips.

        Args:
            clips: Indices of the clips, from 0 to B - 1, in the order wanted.

        Returns:
            The selected clips, with the failed clips of this batch.
        """
        pick = lambda items: [items[i] for i in clips]  # noqa: E731
        waveforms = Waveforms.of(self.waveforms).select(clips)
        return Batch(pick(self.ids), waveforms, pick(self.texts), pick(self.languages), self.failures)


# The batch of a rank that has no readable clip. The rank computes it so that other ranks do not wait, and discards the
# result.
SILENCE = Batch(["silence"], [torch.zeros(SAMPLE_RATE // 2)], [""], ["English"])


def load_batch(cuts: Iterable[Cut], speeds: Iterable[float] | None = None) -> Batch:
    """Read the audio of clips. Drop, count and log the clips that cannot be used.

    Args:
        cuts: Clips, see `arkasr.data.checks`.
        speeds: Speed of each clip. None: their own.

    Returns:
        The usable clips, in the order of the cuts.
    """
    waveforms: list[Tensor] = []
    batch = Batch([], waveforms, [], [])
    for cut, speed in zip(cuts, repeat(1.0) if speeds is None else speeds):
        waveform = _waveform(cut, speed)
        if isinstance(waveform, Failure):
            batch.failures.append(waveform)
            log(f"dropped {waveform}", on_every_rank=True)
            continue
        supervision = cut.supervisions[0]
        batch.ids.append(cut.id)
        waveforms.append(waveform)
        batch.texts.append(supervision.text or "")
        batch.languages.append(supervision.language or "English")
    return batch


def _waveform(cut: Cut, speed: float) -> Tensor | Failure:
    if failure := refusal(cut):
        return failure
    try:
        return read_waveform(cut, speed)
    except Unusable as reason:
        return Failure(cut.id, source_of(cut), reason.kind, reason.detail)


def evaluation_cuts(
    path: str, max_seconds: float, done: Container[str] = (), rules: Rules | None = None
) -> Iterator[list[Cut]]:
    """Yield every clip of a manifest once, longest first, so that running out of memory shows in the first batch.

    Args:
        path: Manifest, see `arkasr.data.manifests.shards`.
        max_seconds: Largest padded duration of one batch: longest clip times number of clips, in seconds. A longer
            clip forms its own batch.
        done: Ids of clips to leave out.
        rules: See `arkasr.data.manifests.read_cuts`.

    Yields:
        The cuts of each batch, which `load_batch` reads.
    """
    pending: list[Cut] = []
    for cut in sorted((c for c in read_cuts(path, rules) if c.id not in done), key=lambda c: (-c.duration, c.id)):
        if pending and pending[0].duration * (len(pending) + 1) > max_seconds:
            yield pending
            pending = []
        pending.append(cut)
    if pending:
        yield pending
