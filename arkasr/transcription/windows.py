"""Cut a recording of any length into windows that the model can read. Memory does not grow with the length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from importlib.util import find_spec

from torch import Tensor

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.fixed import FixedCutter
from arkasr.transcription.pauses import PauseCutter
from arkasr.transcription.settings import WINDOW_SECONDS, Settings
from arkasr.transcription.stream import Cutter, Finite, Stream, Window

DETECTOR = "silero_vad"  # the package that finds pauses
NOT_INSTALLED = "because no detector of pauses is installed (pip install 'arkasr[transcribe]' adds one)"
LEAST_SECONDS = 1.0  # of a window


class Windows(Iterator[Window]):
    """The windows of one recording, in order.

    Args:
        blocks: Tensors float32 [num_samples] at 16 kHz.
        cutter: Decides where windows begin and end.
        notes: What the reader should know of the choice of the cutter.

    Attributes:
        notes: What the reader should know, one sentence each. Complete after the last window.
    """

    def __init__(self, blocks: Iterable[Tensor], cutter: Cutter, notes: Iterable[str] = ()):
        self.notes = [*notes]
        self._windows = self._cut(Finite(blocks), cutter)

    def __next__(self) -> Window:
        return next(self._windows)

    def _cut(self, blocks: Finite, cutter: Cutter) -> Iterator[Window]:
        stream = Stream()
        for block in blocks:
            stream.append(block)
            for span in cutter.advance(block):
                yield stream.window(span)
            stream.forget(cutter.needed)
        for span in cutter.finish():
            yield stream.window(span)
        self.notes += [*blocks.notes(), *cutter.notes()]


def cut(blocks: Iterable[Tensor], settings: Settings) -> Windows:
    """Cut a recording into windows. One of at most `settings.window_seconds` stays whole.

    Args:
        blocks: Tensors float32 [num_samples] of any lengths, mono at 16 kHz. They are read as windows are needed, and
            about two windows of audio are held.
        settings: `segmentation` and `window_seconds` are used.

    Returns:
        The windows, and notes after the last one.

    Raises:
        UserError: `window_seconds` is too small, or `segmentation` is `pauses` and the detector is not installed.
    """
    seconds, way = settings.window_seconds, settings.segmentation
    if seconds is None:
        seconds = WINDOW_SECONDS
    if not (math.isfinite(seconds) and seconds >= LEAST_SECONDS):
        raise UserError(f"window_seconds {seconds:g}: must be at least {LEAST_SECONDS:g}; the default suits the model")
    installed = find_spec(DETECTOR) is not None
    if way == "pauses" and not installed:
        raise UserError(
            "segmentation pauses: needs the package silero-vad, which is not installed; run "
            "pip install 'arkasr[transcribe]', or choose fixed"
        )
    size = int(seconds * SAMPLE_RATE)
    if way == "fixed":
        return Windows(blocks, FixedCutter(size))
    if not installed:
        return Windows(blocks, FixedCutter(size, NOT_INSTALLED))
    return Windows(blocks, PauseCutter(size, keep_short=way == "auto"))
