"""Windows of one length that overlap."""

from __future__ import annotations

from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.stream import Span

MOST_OVERLAP = 4 * SAMPLE_RATE


def overlap_of(size: int) -> int:
    """Return how much of a window the next one repeats.

    Args:
        size: Samples of a window.

    Returns:
        Samples: a quarter of the window, at most four seconds.
    """
    return min(MOST_OVERLAP, size // 4)


class FixedCutter:
    """Cuts windows of `size` samples. Each holds the end of the one before. Only the last one may be shorter.

    Args:
        size: Samples of a window.
        reason: Why windows are fixed, for the note.

    Attributes:
        needed: See `Cutter`.
    """

    def __init__(self, size: int, reason: str = ""):
        self.needed = 0
        self._size, self._reason = size, reason
        self._total = self._windows = 0

    def advance(self, block: Tensor) -> list[Span]:
        """See `Cutter`."""
        self._total += len(block)
        found = []
        while self._total > self.needed + self._size:
            found.append(self._span(self.needed + self._size))
            self.needed += self._size - overlap_of(self._size)
        return found

    def finish(self) -> list[Span]:
        """See `Cutter`. What is left is longer than the overlap, or the whole recording."""
        return [self._span(self._total)] if self._total else []

    def _span(self, end: int) -> Span:
        self._windows += 1
        return Span(self.needed, end, overlap_of(self._size) if self.needed else 0)

    def notes(self) -> list[str]:
        """See `Cutter`."""
        if self._windows < 2:
            return []
        seconds = overlap_of(self._size) / SAMPLE_RATE
        how = f"cut into {self._windows} windows that overlap by {seconds:g} s"
        return [f"{how}, {self._reason}" if self._reason else how]
