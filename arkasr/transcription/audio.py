"""Audio of any format, sampling rate, number of channels and length, as blocks of mono samples at 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from arkasr.data.waveforms import MAX_PEAK
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.decoded import Decoded
from arkasr.transcription.opening import decode
from arkasr.transcription.resampling import Resampler

SILENT = "the audio is silent: all samples are 0"


class AudioStream:
    """The audio of one file. It can be iterated once, and holds about a second of it at a time.

    Channels are mixed by their mean.

    Args:
        name: Name of the file, for messages.
        decoded: Its samples.
        length: Seconds to read. None: to the end.

    Attributes:
        name: Name of the file.
        seconds: Length of the audio that was read so far.
        peak: Largest absolute sample so far.
    """

    def __init__(self, name: str, decoded: Decoded, length: float | None = None):
        self.name, self.seconds, self.peak = name, 0.0, 0.0
        self._decoded, self._length = decoded, length

    @property
    def notes(self) -> list[str]:
        """What the reader should know, one clause each. Complete when the iteration has ended."""
        return [*self._decoded.notes, *([SILENT] if self.seconds and not self.peak else [])]

    def __iter__(self) -> Iterator[Tensor]:
        """Decode the audio.

        Yields:
            float32 [n], mono at 16 kHz.

        Raises:
            UserError: The audio has no samples, samples that are not finite, or samples at the scale of integers.
        """
        resampler, count = Resampler(self._decoded.rate), 0
        for block in self._checked(self._wanted()):
            count += len(block)
            self.seconds = count / self._decoded.rate
            yield from _tensors(resampler.feed(block))
        yield from _tensors(resampler.finish())
        if not count:
            raise UserError(f"{self.name}: holds 0 samples; record or copy it again, or leave it out")

    def _wanted(self) -> Iterator[np.ndarray]:
        """Yield the blocks [n, channels] up to the wanted length."""
        if self._length is None:
            yield from self._decoded.blocks
            return
        left = math.ceil(self._length * self._decoded.rate)
        for block in self._decoded.blocks:
            yield block[:left]
            left -= len(block[:left])
            if not left:
                return
        self._decoded.notes.append(f"the audio ends {left / self._decoded.rate:.1f} s before the end of the segment")

    def _checked(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            if not len(block):
                continue
            mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
            peak = float(np.abs(block).max())
            if not math.isfinite(peak):
                raise UserError(f"{self.name}: some samples are NaN or infinite; write the file again, or leave it out")
            if peak > MAX_PEAK:
                what_to_do = "divide the samples by the full scale, which is 32768 for 16-bit integers"
                raise UserError(f"{self.name}: the peak is {peak:.6g}, full scale is 1; {what_to_do}")
            self.peak = max(self.peak, peak)
            yield mono


def _tensors(samples: np.ndarray) -> Iterator[Tensor]:
    if len(samples):
        yield torch.from_numpy(np.ascontiguousarray(samples))


def open_audio(
    source: str | Path | bytes | BinaryIO, name: str = "", begin: float = 0.0, end: float | None = None
) -> AudioStream:
    """Open audio of any format: by libsndfile, or by PyAV if libsndfile cannot read it.

    Args:
        source: Path of a file, its bytes, or an open binary file, such as standard input. A file that cannot seek is
            copied to a temporary file first.
        name: Name for messages. Default: the path.
        begin: Seconds at the start that are left out.
        end: Where reading ends, in seconds from the start of the file. None: at its end.

    Returns:
        The audio. Its samples are read while iterating over it.

    Raises:
        UserError: The source is not there, is a command or an address, cannot be read, or is not audio. Further errors
            show while iterating, see `AudioStream`.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "audio")
    return AudioStream(name, decode(source, name, begin), None if end is None else end - begin)


def as_stream(name: str, blocks: Iterator[Tensor]) -> AudioStream:
    """Make a stream of audio that is decoded already.

    Args:
        name: Name for messages.
        blocks: float32 [n] each, mono at 16 kHz.

    Returns:
        The audio.
    """
    return AudioStream(name, Decoded(SAMPLE_RATE, (block.numpy()[:, None] for block in blocks)))
