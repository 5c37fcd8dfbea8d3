"""Transcription of long clips in windows: where to split the audio, and how to join the texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import arkasr

if TYPE_CHECKING:
    from torch import Tensor

FRAME = 3 * arkasr.SAMPLE_RATE // 10  # samples over which loudness is measured, longer than a stop consonant


def split_at_quiet(waveform: Tensor, longest: int) -> list[Tensor]:
    """Split a clip into windows at quiet places, so that few words are cut in two.

    A boundary is the quietest 0.3 s within a sixth of `longest` around the place that would make all remaining windows
    equally long. The windows are few, but not always the fewest, because boundaries need this freedom.

    Args:
        waveform: Tensor [num_samples].
        longest: Maximum number of samples per window.

    Returns:
        The windows in order. Together they are the clip.
    """
    windows, margin = [], longest // 6
    while len(waveform) > longest:
        middle = len(waveform) // -(-len(waveform) // (longest - margin))
        boundary = _quietest(waveform, middle - margin, middle + margin)
        windows.append(waveform[:boundary])
        waveform = waveform[boundary:]
    return [*windows, waveform]


def _quietest(waveform: Tensor, low: int, high: int) -> int:
    """Return the middle of the quietest frame in samples `low` to `high`."""
    frames = waveform[low:high].unfold(0, FRAME, FRAME // 2)
    return low + int(frames.square().mean(-1).argmin()) * (FRAME // 2) + FRAME // 2


def join_transcripts(parts: Sequence[arkasr.Transcript], language: str) -> arkasr.Transcript:
    """Join the transcripts of the windows of one clip.

    Args:
        parts: Transcripts in the order of the windows.
        language: English name of the language. Texts of languages that are written with spaces are
            joined with a space.

    Returns:
        One transcript. It is cut if one of its parts is, and looping if one of its parts is.
    """
    found = arkasr.known_language(language)
    text = ("" if found and found.metric == "cer" else " ").join(part for part in parts if part)
    num_tokens = sum(part.num_tokens or 0 for part in parts)
    return arkasr.Transcript(text, all(p.stopped for p in parts), any(p.looping for p in parts), num_tokens)
