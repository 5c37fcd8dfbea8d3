"""Windows of several files that wait for the model, and the batches that are taken from them."""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import accumulate, pairwise
from typing import NamedTuple

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.job import Job
from arkasr.transcription.stream import Window


class Piece(NamedTuple):
    """One window that waits.

    Attributes:
        samples: Its length.
        place: Number of pieces that were added before.
        job: The file that it belongs to.
        number: Number of the window in its file.
        window: The window.
    """

    samples: int
    place: int
    job: Job
    number: int
    window: Window


class Pool:
    """Pieces in the order of their lengths.

    Attributes:
        seconds: Audio of all pieces.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._pieces: list[Piece] = []
        self._added = 0

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, job: Job, number: int, window: Window) -> None:
        """Add a window.

        Args:
            job: The file that it belongs to.
            number: Number of the window in its file.
            window: The window.
        """
        samples = len(window.waveform)
        insort(self._pieces, Piece(samples, self._added, job, number, window))
        self._added += 1
        self.seconds += samples / SAMPLE_RATE

    def take(self, batch_seconds: float) -> list[Piece]:
        """Take the piece that waits longest, with those of the most similar lengths.

        Taking the oldest bounds the time that a file waits, so results come in the order of the files.

        Args:
            batch_seconds: Most seconds of the batch, padding included. One piece is always taken.

        Returns:
            The pieces, the longest first.
        """
        pieces, limit = self._pieces, batch_seconds * SAMPLE_RATE
        low = bisect_left(pieces, min(pieces, key=lambda piece: piece.place))
        high = low + 1
        while high - low < len(pieces):
            middle = pieces[(low + high) // 2].samples
            below = middle - pieces[low - 1].samples if low else None
            above = pieces[high].samples - middle if high < len(pieces) else None
            up = below is None or (above is not None and above < below)
            longest = pieces[high if up else high - 1].samples
            if (high - low + 1) * longest > limit:
                if not up or not low or (high - low + 1) * pieces[high - 1].samples > limit:
                    break
                up = False
            low, high = (low, high + 1) if up else (low - 1, high)
        taken = pieces[low:high]
        del pieces[low:high]
        self.seconds = self.seconds - sum(piece.samples for piece in taken) / SAMPLE_RATE if pieces else 0.0
        return taken[::-1]

    def take_all(self, parts: int, batch_seconds: float) -> list[list[Piece]]:
        """Take everything as a few batches with the same amount of audio, if it fits.

        Args:
            parts: Number of batches.
            batch_seconds: Most seconds of each, padding included.

        Returns:
            At most `parts` batches, the longest piece of each first. Nothing is taken if one would be too large.
        """
        ends = list(accumulate(piece.samples for piece in self._pieces))
        total = ends[-1] if ends else 0
        cuts = [0, *(bisect_left(ends, total * part / parts) + 1 for part in range(1, parts)), len(ends)]
        batches = [self._pieces[low:high][::-1] for low, high in pairwise(cuts) if low < high]
        if any(len(batch) * batch[0].samples > batch_seconds * SAMPLE_RATE for batch in batches):
            return []
        self._pieces, self.seconds = [], 0.0
        return batches
