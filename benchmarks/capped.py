"""Run `arkasr serve` or `arkasr transcribe` with random weights, whose transcripts end at a cap and count as complete.

    python benchmarks/capped.py serve --model DIR      # a folder that --weights of `transcribe.py` or `serve.py` got

Random weights do not stop. Without the cap, each transcript would run to 25 tokens per second of audio, count as cut,
and be decoded again in other windows, as no trained model does. The environment variable TOKENS_PER_SECOND sets the
cap (default: 4, as many as speech has in Qwen2.5's vocabulary).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fresh
from torch import Tensor

from arkasr import Transcript
from arkasr.cli import main
from arkasr.model.hotwords import DEFAULT_WEIGHT
from arkasr.transcription.recognizer import Recognizer

TOKENS_PER_SECOND = 4.0


class Capped(Recognizer):
    """A recogniser whose transcripts end at their cap and count as complete, so that none is decoded again."""

    @classmethod
    def load(cls, *args: Any, **options: Any) -> Capped:
        """Load a model and block its stop tokens. See `Recognizer.load`."""
        loaded = cls(*args[:1])
        loaded.lm = _load(*args, **options).lm
        assert loaded.lm is not None
        loaded.lm.blocked[loaded.lm.stop_ids] = True
        loaded.tokens_per_second = float(os.environ.get("TOKENS_PER_SECOND", TOKENS_PER_SECOND))
        return loaded

    def transcribe(
        self,
        waveforms: Sequence[Tensor],
        languages: Sequence[str],
        hotwords: Sequence[str] = (),
        hotword_weight: float = DEFAULT_WEIGHT,
    ) -> list[Transcript]:
        """See `Recognizer`."""
        found = super().transcribe(waveforms, languages, hotwords, hotword_weight)
        return [Transcript(str(text), True, False, text.num_tokens) for text in found]


_load = Recognizer.load


def kept_weights(size: str, vocab: int, folder: Path, device: str, dtype: str) -> Path:
    """Write an Ark-ASR with random weights, unless a folder has one.

    Args:
        size: Key of `fresh.STUDENTS`.
        vocab: Vocabulary size.
        folder: Where it is written, or was.
        device: Where the weights are initialised.
        dtype: Name of the weights' torch dtype.

    Returns:
        The folder of the model, whose name tells size, vocabulary and dtype.
    """
    model = folder / f"{size}-{vocab}-{dtype}"
    if not (model / "done").exists():
        fresh.student(size, fresh.tokenizer(vocab), device, dtype).save(model)
        (model / "done").touch()
    return model


if __name__ == "__main__":
    Recognizer.load = Capped.load  # type: ignore[method-assign]
    sys.exit(main())
