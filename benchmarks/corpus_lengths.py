"""Lengths of clips and transcripts of the three corpora, drawn from published quantiles.

Between two quantiles the drawn distribution is linear. Duration and speaking rate are drawn independently.

Sources:

- Durations: the tables in icefall's `egs/{aishell,librispeech,wenetspeech}/ASR/local/display_manifest_statistics.py`.
  They describe the training sets with speed perturbation by 0.9, 1 and 1.1, which spreads the lengths a little.
  For WenetSpeech its subset M is taken.
- Speaking rate of AISHELL-1, in characters per second: a WeNet data set card that analyses the training set.
- Speaking rate of LibriSpeech: 10 million words in 960 h (Irie et al. 2019, arXiv:1905.04226).
- Speaking rate of WenetSpeech: 5.18 syllables per second for Mandarin (Pellegrino et al. 2011, Language 87, 539-558).
- Tokens per word or character: the Qwen tokenizer on a few sentences.

The spread of the speaking rate is published for AISHELL-1 only, so its relative spread is used for all corpora.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

# Shares of the clips, and the speaking rate of AISHELL-1 relative to its median that each share does not exceed
RATE_SHARES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
RATES = tuple(rate / 3.204 for rate in (0.606, 2.894, 3.204, 3.520, 4.360, 5.496))
SHARES = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
FEW_SHARES = (0.0, 0.25, 0.5, 0.75, 0.99, 0.995, 0.999, 1.0)
SAMPLING_RATE = 16000


@dataclass(frozen=True)
class Corpus:
    """A corpus as published statistics describe it.

    Attributes:
        clips: Number of training clips.
        parts: For each part of the corpus: its number of clips, shares of clips, and the duration in seconds that each
            share does not exceed.
        rate: Median number of words or characters per second.
        tokens: Tokens of the student per word or character.
        unit: A word or character of mean size in bytes.
    """

    clips: int
    parts: tuple[tuple[int, tuple[float, ...], tuple[float, ...]], ...]
    rate: float
    tokens: float
    unit: str

    def tokens_of(self, text_bytes: float) -> float:
        """Return the tokens of a transcript, its stop token included.

        Args:
            text_bytes: Its size in UTF-8.
        """
        return round(text_bytes / len(self.unit.encode()) * self.tokens) + 1


CORPORA = {
    "aishell": Corpus(
        clips=120_098,
        parts=((1, SHARES, (1.1, 1.8, 2.2, 2.3, 2.7, 3.0, 3.5, 4.3, 5.4, 6.5, 7.2, 8.8, 9.4, 10.9, 16.1)),),
        rate=3.2,
        tokens=0.6,
        unit="字",
    ),
    "librispeech": Corpus(
        clips=281_241,
        parts=(
            (28_539, SHARES, (1.3, 1.9, 2.2, 2.5, 4.2, 6.4, 11.4, 13.8, 15.3, 16.7, 17.3, 18.1, 18.4, 18.8, 27.2)),
            (104_014, SHARES, (1.0, 1.8, 2.2, 2.5, 4.2, 6.2, 11.2, 13.7, 15.3, 16.6, 17.3, 18.1, 18.4, 18.8, 33.0)),
            (148_688, SHARES, (0.8, 1.7, 2.1, 2.3, 3.5, 5.0, 9.8, 13.4, 15.1, 16.5, 17.2, 18.1, 18.4, 18.9, 31.0)),
        ),
        rate=2.9,
        tokens=1.1,
        unit="words ",
    ),
    "wenetspeech": Corpus(
        clips=14_625_245,
        parts=((1, FEW_SHARES, (0.2, 1.4, 2.0, 2.9, 8.0, 8.8, 12.1, 405.1)),),
        rate=5.18,
        tokens=0.6,
        unit="字",
    ),
}


def draw_clips(corpus: Corpus, number: int, spread: float, seed: int) -> tuple[list[float], list[int]]:
    """Draw clips of a corpus.

    Args:
        corpus: The corpus.
        number: Number of clips.
        spread: Factor on the spread of the speaking rate around its median. 1 is that of AISHELL-1.
        seed: Seed of the draw.

    Returns:
        Durations in seconds and numbers of words or characters.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([part[0] for part in corpus.parts], dtype=float)
    part, share = rng.choice(len(sizes), size=number, p=sizes / sizes.sum()), rng.random(number)
    by_part = np.stack([np.interp(share, shares, seconds) for _, shares, seconds in corpus.parts])
    seconds = np.rint(by_part[part, np.arange(number)] * SAMPLING_RATE) / SAMPLING_RATE
    relative = 1 + spread * (np.interp(rng.random(number), RATE_SHARES, RATES) - 1)
    units = np.maximum(np.rint(seconds * corpus.rate * np.maximum(relative, 0.05)), 1)
    return seconds.tolist(), units.astype(int).tolist()


def write_manifest(path: Path, corpus: Corpus, seconds: Iterable[float], units: Iterable[int]) -> None:
    """Write a manifest of clips whose audio does not exist.

    Args:
        path: File to write, .jsonl.
        corpus: The corpus.
        seconds: Durations in seconds.
        units: Numbers of words or characters.
    """
    with path.open("w", encoding="utf-8") as file:
        for i, (duration, size) in enumerate(zip(seconds, units, strict=True)):
            name, samples = f"clip-{i}", round(duration * SAMPLING_RATE)
            source = [AudioSource("file", [0], f"/nowhere/{name}.wav")]
            recording = Recording(name, source, SAMPLING_RATE, samples, samples / SAMPLING_RATE)
            text = SupervisionSegment(name, name, 0.0, recording.duration, text=corpus.unit * size, language="English")
            cut = MonoCut(name, 0.0, recording.duration, 0, [text], recording=recording)
            file.write(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n")
