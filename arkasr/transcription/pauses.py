"""Windows that begin and end in pauses. What has no speech is skipped."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.fixed import overlap_of
from arkasr.transcription.stream import Span
from arkasr.transcription.voice_activity import FRAME, SpeechDetector
from arkasr.utils.console import count_text

LONG_PAUSE = SAMPLE_RATE // 2  # least that ends a window, as it ends the clips of most corpora
PAUSES_PER_WINDOW = 28  # a longer window ends at a longer pause, so that who hesitates is not cut off: 1 s of 28 s
SHORT_PAUSE = SAMPLE_RATE // 10  # a window that is full may be cut there
LEAST_SPEECH = SAMPLE_RATE // 10  # less is a click


class PauseCutter:
    """Cuts where speech pauses.

    1. A window begins 0.3 s before speech. After a pause of one second it ends 0.3 s after the speech. That is for
       windows of 28 s. Windows of at most 14 s take half of each.
    2. A window that is full before that is cut in the middle of its longest pause of at least 0.1 s in its second half,
       or in its second quarter if there is none.
    3. If speech does not pause there, the window is cut where it is full, and the next one repeats its end.
    4. Windows with less than 0.1 s of speech are skipped. A recording of at most one window stays whole, or is skipped.

    Args:
        size: Most samples of a window.
        detector: Finds speech. None: Silero's.
        keep_short: Do not look for speech in a recording of at most one window, unless it is silent. The detector reads
            60 times as fast as the audio plays, on one core, which is slow beside small models and GPUs.

    Attributes:
        needed: See `Cutter`.
    """

    def __init__(self, size: int, detector: SpeechDetector | None = None, keep_short: bool = False):
        self.needed = 0
        self._size, self._detector, self._keep_short = size, detector, keep_short
        self._pause = max(LONG_PAUSE, size // PAUSES_PER_WINDOW)  # ends a window
        self._margin = 3 * self._pause // 10  # of silence that windows keep before and after speech
        self._unread: list[Tensor] = []  # blocks that the detector has not read
        self._total = self._frame = 0  # samples that were received, and those in frames that were read
        self._start: int | None = None  # of the window that is open
        self._overlap = self._free = 0  # of this window, and the first sample that no window holds
        self._speech: list[int] = []  # frames with speech in this window, by their first samples
        self._waiting: list[Span] = []  # windows of a recording that may turn out to be short
        self._coverage = Coverage()

    def advance(self, block: Tensor) -> list[Span]:
        """Read the next samples (see `Cutter`).

        Args:
            block: float32 [num_samples].

        Returns:
            The windows that are now decided.
        """
        self._total += len(block)
        self._unread.append(block)
        if self._is_kept():
            return []
        self._detect()
        if self._total <= self._size:
            return []
        self.needed = max(self._free, self._frame - self._margin) if self._start is None else self._start
        return self._release()

    def finish(self) -> list[Span]:
        """Return the windows that are decided by the end of the recording (see `Cutter`)."""
        if self._is_kept():
            self._waiting = [Span(0, self._total)] if any(block.any() for block in self._unread) else []
            return self._release()
        self._waiting += self._read(self._detect().finish())
        if self._start is not None:
            self._waiting += self._close(min(self._total, self._last() + self._margin))
        if self._waiting and self._total <= self._size:
            self._waiting = [Span(0, self._total)]
        return self._release()

    def notes(self) -> list[str]:
        """Return what the reader should know of the windows (see `Cutter`)."""
        return self._coverage.notes(self._total)

    def _is_kept(self) -> bool:
        return self._keep_short and self._total <= self._size

    def _detect(self) -> SpeechDetector:
        """Let the detector read what it has not read."""
        self._detector = self._detector or SpeechDetector()
        unread, self._unread = self._unread, []
        for block in unread:
            self._waiting += self._read(self._detector.advance(block))
        return self._detector

    def _release(self) -> list[Span]:
        found, self._waiting = self._waiting, []
        self._coverage.add(found)
        return found

    def _read(self, flags: Iterable[bool]) -> list[Span]:
        found = []
        for speech in flags:
            if speech and self._start is None:
                self._start, self._overlap, self._speech = max(self._free, self._frame - self._margin), 0, []
            if speech:
                self._speech.append(self._frame)
            self._frame += FRAME
            if self._start is not None:
                found += self._decide(self._start, min(self._frame, self._total))
        return found

    def _decide(self, start: int, end: int) -> list[Span]:
        if end - self._last() >= self._pause:
            return self._close(self._last() + self._margin)
        if end - start <= self._size:
            return []
        cut = self._longest_pause(start, end)
        if cut is None:
            return self._close(start + self._size, overlap_of(self._size))
        return self._close(cut)

    def _last(self) -> int:
        """Return where the last speech of the open window ends."""
        return self._speech[-1] + FRAME if self._speech else self._start or 0

    def _longest_pause(self, start: int, end: int) -> int | None:
        pauses = [(before + FRAME, after) for before, after in pairwise([*self._speech, end])]
        by_cut = {(a + b) // 2: b - a for a, b in pauses if b - a >= SHORT_PAUSE}
        for first in (start + self._size // 2, start + self._size // 4):
            if late := [cut for cut in by_cut if cut >= first]:
                return max(late, key=lambda cut: (by_cut[cut], cut))
        return None

    def _close(self, end: int, overlap: int = 0) -> list[Span]:
        """End the open window, and open the next one if there is speech after its start."""
        assert self._start is not None
        span = Span(self._start, end, self._overlap)
        enough = sum(frame < end for frame in self._speech) * FRAME >= LEAST_SPEECH
        self._speech = [frame for frame in self._speech if frame + FRAME > end - overlap]
        self._free = end - overlap
        self._start, self._overlap = (self._free, overlap) if self._speech else (None, 0)
        return [span] if enough else []


class Coverage:
    """Counts the windows of a recording, and the time that none of them holds."""

    def __init__(self) -> None:
        self._windows = self._gaps = self._end = self._skipped = 0

    def add(self, spans: Iterable[Span]) -> None:
        """Count windows.

        Args:
            spans: The windows in order.
        """
        for span in spans:
            self._gap(span.start)
            self._end, self._windows = span.end, self._windows + 1

    def _gap(self, until: int) -> None:
        if until > self._end:
            self._gaps, self._skipped = self._gaps + 1, self._skipped + until - self._end

    def notes(self, total: int) -> list[str]:
        """Return the counts in words.

        Args:
            total: Samples of the recording.

        Returns:
            Sentences on the windows and on what was skipped. None for a recording that is one window.
        """
        self._gap(total)
        seconds, skipped = total / SAMPLE_RATE, self._skipped / SAMPLE_RATE
        if not self._windows:
            return [f"no speech was found in {seconds:.1f} s of audio, so nothing was transcribed"] if total else []
        found = [f"cut at pauses into {self._windows} windows"] if self._windows > 1 else []
        if self._gaps:
            stretches = count_text(self._gaps, "stretch")
            found.append(f"skipped {stretches} without speech, {skipped:.1f} s of {seconds:.1f} s")
        return found
