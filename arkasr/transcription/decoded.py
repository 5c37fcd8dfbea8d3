"""Samples as decoders return them, and what is known about their length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from arkasr.utils.console import count_text

SHORT_S = 0.5  # seconds that may be missing without a note: codecs pad, and round to whole frames
MOST_DAMAGE = 1000  # places, after which the rest of a file is given up


@dataclass
class Decoded:
    """The samples of one file.

    Attributes:
        rate: Sampling rate in Hz.
        blocks: The samples in order, float32 [n, channels]. They are decoded while iterating.
        notes: What was found while decoding, one clause each. They are complete when `blocks` has ended.
    """

    rate: int
    blocks: Iterator[np.ndarray]
    notes: list[str] = field(default_factory=list)


def short_note(seconds: float, declared: float | None) -> list[str]:
    """Compare the length of decoded audio with what its file declares.

    Args:
        seconds: Decoded seconds.
        declared: Seconds that the file declares, or None.

    Returns:
        One note if much is missing, else none.
    """
    if declared is None or declared - seconds <= max(SHORT_S, 0.001 * declared):
        return []
    return [f"the audio ends after {seconds:.1f} s, but the file declares {declared:.1f} s: it is cut short or damaged"]


def damage_note(places: int) -> list[str]:
    """Describe damaged places.

    Args:
        places: Their number.

    Returns:
        One note, or none if there is no damage.
    """
    return [f"{count_text(places, 'damaged place')} of the file could not be decoded"] if places else []


def without_start(blocks: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Leave out the first samples.

    Args:
        blocks: See `Decoded.blocks`.
        count: Number of samples per channel.

    Yields:
        The blocks after them.
    """
    for block in blocks:
        if count < len(block):
            yield block[count:]
        count = max(count - len(block), 0)
