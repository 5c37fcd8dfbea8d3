"""A recogniser whose texts, delays and errors a test decides. It records its batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from torch import Tensor

from arkasr import SAMPLE_RATE, Transcript, UserError
from arkasr.transcription.recognizer import Recognizer

BAD = 0.75  # first sample of a waveform that cannot be transcribed


class ScriptedRecognizer:
    """Transcribes audio as its length in seconds and its language.

    Attributes:
        go: Batches wait for it. It is set at first.
        batches: Per batch, the seconds of its windows.
        most: Windows of which a batch may have, before memory runs out.
    """

    name, lm, max_seconds = "scripted", None, None
    window_seconds = Recognizer.window_seconds

    def __init__(self) -> None:
        self.go, self.most = threading.Event(), 1000
        self.go.set()
        self.batches: list[list[float]] = []

    def transcribe(
        self, waveforms: Sequence[Tensor], languages: Sequence[str], hotwords: Sequence[str] = (), weight: float = 0.0
    ) -> list[Transcript]:
        self.batches.append([len(w) / SAMPLE_RATE for w in waveforms])
        assert self.go.wait(60)
        if len(waveforms) > self.most:
            raise RuntimeError("CUDA out of memory")
        if any(w[0] == BAD for w in waveforms):
            raise UserError("the window is bad")
        texts = [" ".join([f"{len(w) / SAMPLE_RATE:g} s", lang, *hotwords]) for w, lang in zip(waveforms, languages)]
        return [Transcript(text, True, False, 1) for text in texts]

    def check_hotwords(self, hotwords: Sequence[str], weight: float = 0.0) -> None:
        if "" in hotwords or "bad" in hotwords:
            raise UserError("--hotwords bad: cannot be written in the model's tokens; leave it out")
