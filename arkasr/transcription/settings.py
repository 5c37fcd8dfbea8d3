"""The options that the command, Python and the service share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arkasr.model.hotwords import DEFAULT_WEIGHT

WINDOW_SECONDS = 28.0  # Whisper's encoder reads 30


@dataclass(frozen=True)
class Settings:
    """How audio is transcribed.

    Attributes:
        language: English name of the language of the audio.
        batch_seconds: Seconds of audio per batch, padding included.
        window_seconds: Longest stretch of audio that the model reads at once. Longer audio is cut into windows. None:
            what suits the model (see `Recognizer.window_seconds`).
        segmentation: Where longer audio is cut. `pauses` cuts where a detector of voice activity finds a pause, and
            skips what has no speech. `fixed` cuts windows that overlap. `auto` is `pauses` if the detector is
            installed, else `fixed`, and reads audio of at most one window without the detector.
        word_times: Whether words get times of their own, by a CTC head.
        aligner: Folder of a model whose CTC head finds the times of words. Empty: the model that transcribes.
        hotwords: Words and phrases that decoding prefers.
        hotword_weight: Bonus per token of a hotword, in units of the logits. A larger one finds more hotwords, also
            where they are not spoken.
    """

    language: str = "English"
    batch_seconds: float = 240.0
    window_seconds: float | None = None
    segmentation: Literal["auto", "pauses", "fixed"] = "auto"
    word_times: bool = False
    aligner: str = ""
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = DEFAULT_WEIGHT
