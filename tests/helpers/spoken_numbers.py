"""Recordings of numbers, four per second, and a recogniser that reads them from the samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arkasr.interfaces import SAMPLE_RATE, Transcript

SILENCE = -1
LENGTH = SAMPLE_RATE // 4  # samples of a number
STEP = 1 / 4096  # between the samples of two numbers: a float32 holds their multiples exactly


def recording(numbers: Sequence[int], length: int = LENGTH) -> Tensor:
    """Return a recording of numbers, or SILENCE, as samples that are constant over each."""
    values = torch.tensor([(number + 1) * STEP for number in numbers])
    return values.repeat_interleave(length)


class NumberReader:
    """A recogniser of such recordings. A number of which less than half is left becomes `half`.

    Args:
        loops_from: Seconds from which transcripts loop.
        report: Whether transcripts say that they loop.
    """

    name = "numbers"
    lm = None
    max_seconds = None

    def __init__(self, loops_from: float = 1e9, report: bool = True):
        self.loops_from, self.report = loops_from, report
        self.calls: list[list[float]] = []

    def transcribe(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], hotwords: Sequence[str] = (), weight: float = 1.0
    ) -> list[Transcript]:
        self.calls.append([len(waveform) / SAMPLE_RATE for waveform in waveforms])
        return [self._text(waveform, language) for waveform, language in zip(waveforms, languages)]

    def _text(self, waveform: Tensor, language: str) -> Transcript:
        values, counts = (waveform / STEP).round().int().unique_consecutive(return_counts=True)
        parts = [
            _word(value - 1, count >= LENGTH / 2, language == "Chinese")
            for value, count in zip(values.tolist(), counts.tolist())
            if value
        ]
        text = ("" if language == "Chinese" else " ").join(parts)
        looping = len(waveform) / SAMPLE_RATE >= self.loops_from
        if looping:
            text += " three" * 20
        return Transcript(text, not looping, looping, len(parts)) if self.report else Transcript(text)


def _word(number: int, whole: bool, chinese: bool) -> str:
    if chinese:
        return chr(0x4E00 + number) if whole else "\u534a"
    return f"n{number}" if whole else "half"


class NumberDetector:
    """Stands in for the detector of speech: all seconds with a number hold speech."""

    def __init__(self) -> None:
        self.rest = torch.zeros(0)

    def advance(self, block: Tensor) -> list[bool]:
        samples = torch.cat([self.rest, block])
        frames = samples[: len(samples) // 512 * 512].view(-1, 512)
        self.rest = samples[frames.numel() :]
        return (frames[:, 255] > 0).tolist()

    def finish(self) -> list[bool]:
        return [bool(self.rest[0] > 0)] if len(self.rest) else []
