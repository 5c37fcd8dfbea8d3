"""The audio of one request on its way through the service: windows in, events out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE, Transcript
from arkasr.serving.errors import ApiError
from arkasr.transcription.assembly import Assembly, whole_text
from arkasr.transcription.audio import AudioStream, open_audio
from arkasr.transcription.recognizer import Recognizer
from arkasr.transcription.results import Segment, Transcription
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Window
from arkasr.transcription.windows import Windows, cut


@dataclass(frozen=True)
class Delta:
    """Text that follows the text so far.

    Attributes:
        text: The text, with the space before it.
        seconds: Where it ends in the audio.
    """

    text: str
    seconds: float


Event = Delta | Transcription | Exception  # the last event of a job is one of the latter two


class DroppedError(Exception):
    """Nobody waits for the job any more."""


class Job:
    """One request that was accepted.

    Its attributes are guarded by the lock of the queue, except for the audio, which one thread reads at a time, and the
    assembly, which belongs to the thread of the worker.

    Args:
        audio: The file. The job closes it.
        name: Name of the file, for messages.
        settings: How it is transcribed.
        max_seconds: Longest audio.
        post: Called from any thread with each event.

    Attributes:
        settings: How it is transcribed.
        windows: Windows that wait, in order.
        filling: Whether a thread reads the audio now.
        ended: Whether all windows were cut.
        served: Whether one of its windows was in a batch.
        dropped: Whether nobody waits for it any more.
        seconds: Seconds of audio that were read.
    """

    def __init__(
        self, audio: BinaryIO, name: str, settings: Settings, max_seconds: float, post: Callable[[Event], None]
    ):
        self.settings, self.post = settings, post
        self.windows: deque[Window] = deque()
        self.filling = self.ended = self.dropped = self.served = False
        self.seconds = 0.0
        self._sent, self._segments = [""], 0  # the texts that were posted, and the number of their segments
        self._audio, self._name, self._max_seconds = audio, name, max_seconds
        self._stream: AudioStream | None = None
        self._cut: Windows | None = None
        self._assembly: Assembly | None = None

    @property
    def buffered(self) -> float:
        """Seconds of audio in waiting windows."""
        return sum(map(window_seconds, self.windows))

    def next_window(self) -> Window | None:
        """Cut the next window, in a thread that may wait for the disk.

        Returns:
            The window, or None at the end of the audio.

        Raises:
            UserError: The audio cannot be read.
            ApiError: It is too long (413).
            DroppedError: Nobody waits for the job any more.
        """
        if self._cut is None:
            self._stream = open_audio(self._audio, self._name)
            self._cut = cut(self._blocks(self._stream), self.settings)
        return next(self._cut, None)

    def _blocks(self, stream: AudioStream) -> Iterator[Tensor]:
        for block in stream:
            if self.dropped:
                raise DroppedError
            self.seconds += len(block) / SAMPLE_RATE
            if self.seconds > self._max_seconds:
                raise ApiError(
                    413,
                    "audio_too_long",
                    f"the audio is longer than {self._max_seconds:g} s (--max_seconds); cut it",
                    "file",
                )
            yield block

    def add(self, recognizer: Recognizer, window: Window, transcript: Transcript) -> None:
        """Add the transcript of the next window, in the thread of the worker.

        Args:
            recognizer: The model, for windows that are decoded again.
            window: The window.
            transcript: Its text.
        """
        self._assembled(recognizer).add(window, transcript)

    def send(self, recognizer: Recognizer) -> None:
        """Post the new text that later windows cannot change, in the thread of the worker.

        All windows that left the queue must have been added.

        Args:
            recognizer: The model.
        """
        try:
            overlaps = self.windows[0].overlap > 0
        except IndexError:  # the next window is not read yet
            overlaps = not self.ended
        self._send(self._assembled(recognizer).settled(overlaps))

    def _send(self, segments: Sequence[Segment]) -> None:
        """Post the text of further segments. All parts together are the text of the result."""
        self._segments += len(segments)
        text = whole_text(segments, self.settings.language, self._sent[-1])
        if text:
            self.post(Delta(text, segments[-1].end))
            self._sent.append(text)

    def finish(self, recognizer: Recognizer) -> Transcription:
        """Assemble the whole text, in the thread of the worker.

        Args:
            recognizer: The model, for windows that are decoded again.

        Returns:
            The result.
        """
        segments, notes = self._assembled(recognizer).finish()
        assert self._stream is not None and self._cut is not None
        self._send(segments[self._segments :])
        every = tuple(dict.fromkeys([*self._stream.notes, *self._cut.notes, *notes]))
        language, seconds = self.settings.language, self._stream.seconds
        text = "".join(self._sent)
        return Transcription(self._name, text, tuple(segments), seconds, language, recognizer.name, every)

    def _assembled(self, recognizer: Recognizer) -> Assembly:
        if self._assembly is None:
            self._assembly = Assembly(recognizer, self.settings, self.settings.language)
        return self._assembly

    def close(self) -> None:
        """Close the audio, which deletes the upload."""
        if self.dropped:
            self._cut = self._stream = None
        self._audio.close()


def window_seconds(window: Window) -> float:
    """Return the length of a window.

    Args:
        window: The window.

    Returns:
        Seconds.
    """
    return window.waveform.shape[-1] / SAMPLE_RATE
