"""The part of a recording that is still needed, and the windows that are cut from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE


@dataclass(frozen=True)
class Window:
    """A stretch of audio that the model reads at once.

    Attributes:
        start: Start in seconds from the start of the recording.
        waveform: float32 [num_samples] at 16 kHz.
        overlap: Seconds at its start that the window before holds too. 0 if the cut is in a pause.
    """

    start: float
    waveform: Tensor
    overlap: float = 0.0

    @property
    def end(self) -> float:
        """End in seconds from the start of the recording."""
        return self.start + len(self.waveform) / SAMPLE_RATE


class Span(NamedTuple):
    """The place of a window, in samples from the start of the recording.

    Attributes:
        start: First sample.
        end: Sample after the last one.
        overlap: Samples that the window before holds too.
    """

    start: int
    end: int
    overlap: int = 0


class Cutter(Protocol):
    """Decides where windows begin and end.

    Attributes:
        needed: First sample of which a later window may need the audio.
    """

    needed: int

    def advance(self, block: Tensor) -> list[Span]:
        """Read the next samples.

        Args:
            block: float32 [num_samples].

        Returns:
            The windows that are now decided, in order.
        """

    def finish(self) -> list[Span]:
        """Return the windows that are decided by the end of the recording."""

    def notes(self) -> list[str]:
        """Return what the reader should know of the windows, one sentence each. Call it after `finish`."""


class Stream:
    """Samples from `start` on. What is before was forgotten.

    Attributes:
        start: Index of the first sample that is held, counted from the start of the recording.
        end: Index after the last one.
    """

    def __init__(self) -> None:
        self.start = self.end = 0
        self._blocks: list[Tensor] = []

    def append(self, block: Tensor) -> None:
        """Add the samples that follow.

        Args:
            block: float32 [num_samples].
        """
        self._blocks.append(block)
        self.end += len(block)

    def forget(self, before: int) -> None:
        """Release blocks that end before a sample.

        Args:
            before: Index of the sample.
        """
        while self._blocks and self.start + len(self._blocks[0]) <= before:
            self.start += len(self._blocks.pop(0))

    def window(self, span: Span) -> Window:
        """Copy the samples of a window.

        Args:
            span: Its place. All its samples are held.

        Returns:
            The window.
        """
        parts, at = [], self.start
        for block in self._blocks:
            parts.append(block[max(span.start - at, 0) : max(span.end - at, 0)])
            at += len(block)
        return Window(span.start / SAMPLE_RATE, torch.cat(parts), span.overlap / SAMPLE_RATE)


class Finite:
    """Blocks of audio of at most one second, in which samples that are no numbers are 0.

    Args:
        blocks: Tensors float32 [num_samples] at 16 kHz.
    """

    def __init__(self, blocks: Iterable[Tensor]):
        self._blocks, self._count, self._first = blocks, 0, 0.0

    def __iter__(self) -> Iterator[Tensor]:
        read = 0
        for whole in self._blocks:
            for block in whole.split(SAMPLE_RATE):
                if not (good := block.isfinite()).all():
                    if not self._count:
                        self._first = (read + int((~good).nonzero()[0])) / SAMPLE_RATE
                    self._count += int((~good).sum())
                    block = block.where(good, 0.0)
                read += len(block)
                yield block

    def notes(self) -> list[str]:
        """Return a sentence on the samples that were replaced, if there are some."""
        if not self._count:
            return []
        return [f"{self._count} samples are NaN or infinite, the first at {self._first:.2f} s: they were read as 0"]
