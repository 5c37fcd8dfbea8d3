"""The windows of one recording, in order, to its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from arkasr.interfaces import Transcript
from arkasr.languages import known_language
from arkasr.model.generation.stitching import joined, most_units, seam, units
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.redecoding import Decoded, decode_again, is_repeated, trouble
from arkasr.transcription.results import Segment, Word
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.transcription.word_times import aligner_for
from arkasr.utils.console import count_text

MANY = 3  # windows in trouble that may have a common reason


def is_spaced(language: str) -> bool:
    """Return whether a language is written with spaces between words.

    Args:
        language: English name.

    Returns:
        True for languages that are not in the table.
    """
    known = known_language(language)
    return known is None or known.metric == "wer"


def whole_text(segments: Sequence[Segment], language: str, before: str = "") -> str:
    """Join the texts of segments.

    Args:
        segments: Segments in order.
        language: English name of their language.
        before: The text that the result follows, or its last character.

    Returns:
        The text, with spaces between segments, and behind `before`, where the language has them.
    """
    last = before[-1:]
    return joined([last, *(segment.text for segment in segments)], is_spaced(language)).removeprefix(last)


@dataclass
class _Piece:
    start: float
    end: float
    units: list[str]
    words: list[Word]
    transcript: Transcript


class Assembly:
    """Collects the transcripts of the windows of one recording.

    A window changes at most the piece before it. So only the last piece is open, and the others are segments: the work
    per window does not grow with the recording.

    Args:
        recognizer: The model. It decodes windows again whose text loops.
        settings: `hotwords`, `hotword_weight`, `word_times` and `aligner` are used.
        language: English name of the language.
        keep: Whether texts that are in trouble (see `redecoding`) are kept, with a note, and not decoded again.

    Raises:
        UserError: Word times are asked for and cannot be found (see `word_times.aligner_for`).
    """

    def __init__(self, recognizer: Recognizer, settings: Settings, language: str, keep: bool = False):
        self._recognizer, self._settings, self._language, self._keep = recognizer, settings, language, keep
        self._spaced, self._aligner = is_spaced(language), aligner_for(recognizer, settings)
        self._segments: list[Segment] = []
        self._last: _Piece | None = None  # which the next window may change
        self._returned = 0  # segments that `settled` returned
        self._notes: list[str] = []
        self._empty: list[float] = []  # seconds of windows without text
        self._windows = self._again = 0  # windows that were added, and those that were decoded again

    def add(self, window: Window, transcript: Transcript) -> None:
        """Add the next window. If its text is in trouble, this call decodes its parts, unless texts are kept.

        Args:
            window: A window of `cut`. Windows come in order.
            transcript: Its transcript.
        """
        decoded, self._windows = [Decoded(window, transcript)], self._windows + 1
        if (problem := trouble(decoded[0])) and self._keep:
            self._notes.append(f"{window.start:.2f} to {window.end:.2f} s: the text {problem}, and is kept as it is")
        elif problem:
            decoded, note = decode_again(decoded[0], self._decode)
            self._notes.append(note)
            self._again += 1
        for piece in decoded:
            self._append(*piece)

    def settled(self, overlaps: bool) -> list[Segment]:
        """Return the segments that later windows cannot change, without those of earlier calls.

        All calls together, and what `finish` has behind them, are the segments of the recording.

        Args:
            overlaps: Whether the next window shares audio with the last one, or may do.

        Returns:
            Segments in order, none of them empty.
        """
        if not overlaps:
            self._close()
        new = self._segments[self._returned :]
        self._returned = len(self._segments)
        return new

    def finish(self) -> tuple[list[Segment], list[str]]:
        """Return the segments, and what the reader should know.

        Returns:
            All segments in order, none of them empty, and notes of one sentence each.
        """
        self._close()
        if self._empty:
            windows, seconds = count_text(len(self._empty), "window"), sum(self._empty)
            self._notes.append(f"the model wrote nothing for {windows}, {seconds:.1f} s in total")
        if self._again >= MANY and 2 * self._again >= self._windows:
            self._notes.append(
                f"{self._again} of {self._windows} windows were decoded again; if the model was trained on "
                "shorter clips, lower --window_seconds to their length"
            )
        return self._segments, self._notes

    def _decode(self, waveforms: Sequence[Tensor]) -> list[Transcript]:
        languages, settings = [self._language] * len(waveforms), self._settings
        return self._recognizer.transcribe(waveforms, languages, settings.hotwords, settings.hotword_weight)

    def _append(self, window: Window, transcript: Transcript) -> None:
        parts = units(transcript, self._spaced)
        new = _Piece(window.start, window.end, parts, self._words(window, parts), transcript)
        if not new.units:
            self._empty.append(window.end - window.start)
        if window.overlap and self._last:
            self._join(self._last, new, window.overlap)
        self._close()
        self._last = new

    def _close(self) -> None:
        """Make a segment of the last piece."""
        if self._last and self._last.units:
            self._segments.append(self._segment(self._last))
        self._last = None

    def _words(self, window: Window, parts: list[str]) -> list[Word]:
        if self._aligner is None or not parts:
            return []
        times, start = self._aligner.times(window.waveform, parts, self._spaced), window.start
        if times is None:
            self._notes.append(
                f"{start:.2f} to {window.end:.2f} s: words have no times, as there are too many to align"
            )
            return []
        return [Word(part.strip(), start + begin, start + end) for part, (begin, end) in zip(parts, times)]

    def _join(self, old: _Piece, new: _Piece, overlap: float) -> None:
        keep, skip = seam(old.units, new.units, most_units(overlap, self._spaced))
        old.units, new.units = old.units[:keep], new.units[skip:]
        old.words, new.words = old.words[:keep], new.words[skip:]
        border = new.start + overlap / 2
        if old.words and new.words:
            border = (old.words[-1].end + new.words[0].start) / 2
        old.end = new.start = border
        old.words = [Word(word.text, min(word.start, border), min(word.end, border)) for word in old.words]
        new.words = [Word(word.text, max(word.start, border), max(word.end, border)) for word in new.words]

    def _segment(self, piece: _Piece) -> Segment:
        text, transcript = joined(piece.units, self._spaced), piece.transcript
        looping = is_repeated(transcript) or transcript.looping
        return Segment(text, piece.start, piece.end, tuple(piece.words), transcript.stopped, looping)
