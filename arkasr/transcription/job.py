"""One file on its way to a transcription."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from arkasr.interfaces import Transcript
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.results import Failed, Segment, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.source import Source
from arkasr.transcription.stream import Window
from arkasr.transcription.windows import cut


class Ended(NamedTuple):
    """The end of a file.

    Attributes:
        windows: Number of its windows.
        seconds: Its length.
        notes: What the reader should know.
        error: Why it could not be read, or None.
    """

    windows: int
    seconds: float = 0.0
    notes: Sequence[str] = ()
    error: Exception | None = None


class Job:
    """Reads the windows of one file, and puts their transcripts together.

    Args:
        source: The file.
        recognizer: The model, which decodes loops again.
        settings: The options.
        on_failed: Called at once if the file fails.

    Attributes:
        language: English name of the language of the file.
        is_done: Whether the result is complete.
    """

    def __init__(self, source: Source, recognizer: Recognizer, settings: Settings, on_failed: Callable[[Failed], None]):
        self.name, self.language = source.name, source.language or settings.language
        self.is_done = False
        self._failed: Failed | None = None
        self._source, self._recognizer, self._settings, self._on_failed = source, recognizer, settings, on_failed
        self._assembly = Assembly(recognizer, settings, self.language)
        self._early: dict[int, tuple[Window, Transcript]] = {}  # transcripts whose predecessors are not there yet
        self._next, self._total = 0, -1
        self._seconds = 0.0
        self._segments: list[Segment] = []
        self._notes: list[str] = []

    def read(self) -> Iterator[Window | Ended]:
        """Read the file. This may run in another thread, as it changes nothing.

        Yields:
            Its windows in order, then the end, for `end`.
        """
        count = 0
        try:
            stream = self._source.open()
            windows = cut(stream, self._settings)
            for window in windows:
                if self.is_done:  # failed
                    return
                count += 1
                yield window
            yield Ended(count, stream.seconds, [*stream.notes, *windows.notes])
        except Exception as error:  # one bad file must not end the others
            yield Ended(count, error=error)

    def end(self, ended: Ended) -> None:
        """Note that all windows are read.

        Args:
            ended: The last item of `read`.
        """
        if ended.error is not None:
            self.fail(ended.error)
            return
        self._total, self._seconds, self._notes = ended.windows, ended.seconds, [*ended.notes]
        self._finish_if_complete()

    def add(self, number: int, window: Window, transcript: Transcript) -> None:
        """Add the transcript of a window.

        Args:
            number: Number of the window in the file.
            window: The window.
            transcript: Its transcript.
        """
        self._early[number] = window, transcript
        try:
            while self._next in self._early and not self.is_done:
                self._assembly.add(*self._early.pop(self._next))
                self._next += 1
        except Exception as error:
            self.fail(error)
        self._finish_if_complete()

    def fail(self, error: Exception) -> None:
        """Note why the file cannot be transcribed.

        Args:
            error: What was raised.
        """
        reason = " ".join(str(error).split())[:500]
        known = isinstance(error, ValueError | OSError) and reason
        reason = reason if known else f"{type(error).__name__}: {reason}"
        self._failed = Failed(self.name, reason.removeprefix(f"{self.name}: "))
        self._early.clear()
        self.is_done = True
        self._on_failed(self._failed)

    def _finish_if_complete(self) -> None:
        if self.is_done or self._next != self._total:
            return
        try:
            self._segments, notes = self._assembly.finish()
            self._notes += notes
        except Exception as error:
            self.fail(error)
        self.is_done = True

    def result(self) -> Transcription | Failed:
        """Return the result. The job must be done.

        Returns:
            The transcription, or why there is none.
        """
        if self._failed:
            return self._failed
        text = whole_text(self._segments, self.language)
        notes = tuple(dict.fromkeys(self._notes))
        segments = tuple(self._segments)
        return Transcription(self.name, text, segments, self._seconds, self.language, self._recognizer.name, notes)
