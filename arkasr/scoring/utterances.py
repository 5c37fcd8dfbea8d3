"""What scoring knows of an utterance besides its hypotheses."""

from __future__ import annotations

from typing import NamedTuple


class Utterance(NamedTuple):
    """One utterance of a test set.

    Attributes:
        text: Reference. It may be empty, for silence or noise.
        seconds: Duration of its audio in seconds, or None if unknown.
        speaker: Name of the speaker, empty if unknown.
        condition: Recording condition, such as "clean" or "10 dB", empty if none is named.
    """

    text: str
    seconds: float | None = None
    speaker: str = ""
    condition: str = ""
