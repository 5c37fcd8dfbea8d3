"""Simulated recording conditions: level, reverberation and noise, all drawn from a seeded generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arkasr.interfaces import SAMPLE_RATE

Span = tuple[float, float]  # lowest and highest value of a uniform draw


@dataclass(frozen=True)
class Condition:
    """The ranges from which a recording's condition is drawn.

    Attributes:
        snr_db: Signal-to-noise ratio in dB.
        level_db: RMS level of the speech in dB relative to full scale.
        room_s: Reverberation time in seconds. 0: no reverberation.
        room_share: Share of the energy that is reverberation, from 0 to 1.
    """

    snr_db: Span
    level_db: Span = (-30.0, -20.0)
    room_s: Span = (0.0, 0.0)
    room_share: float = 0.0


def silence(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Return silence of a random length.

    Args:
        rng: The generator.
        low: Shortest length in seconds.
        high: Longest length in seconds.

    Returns:
        float32 [num_samples] of zeros at 16 kHz.
    """
    return np.zeros(int(rng.uniform(low, high) * SAMPLE_RATE), dtype=np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + 1e-12


def _noise(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return noise of unit RMS, whose colour is drawn between white and low-frequency noise."""
    from scipy.signal import lfilter

    colour = rng.uniform(0.0, 0.95)
    noise = lfilter([1.0], [1.0, -colour], rng.standard_normal(length))
    return noise / _rms(noise)


def _room(samples: np.ndarray, seconds: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """Add diffuse reverberation that decays by 60 dB in `seconds` and has `share` of the energy."""
    from scipy.signal import fftconvolve

    length = int(seconds * SAMPLE_RATE)
    if length < 2:
        return samples
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / length)
    reverberant = fftconvolve(samples, tail)[: len(samples)]
    return np.sqrt(1 - share) * samples / _rms(samples) + np.sqrt(share) * reverberant / _rms(reverberant)


def simulate_recording(speech: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation and noise to clean speech and set its level.

    Args:
        speech: float32 [num_samples] at 16 kHz.
        condition: The ranges to draw from.
        rng: The generator.

    Returns:
        float32 [num_samples], scaled down where its peak would exceed 0.99.
    """
    level = 10.0 ** (rng.uniform(*condition.level_db) / 20)
    snr = 10.0 ** (rng.uniform(*condition.snr_db) / 20)
    reverberant = _room(speech, rng.uniform(*condition.room_s), condition.room_share, rng)
    mixed = level * (reverberant / _rms(reverberant) + _noise(rng, len(reverberant)) / snr)
    return (mixed / max(1.0, np.abs(mixed).max() / 0.99)).astype(np.float32)


def write_recording(path: Path, samples: np.ndarray, **options: Any) -> None:
    """Write an audio file, and its folder if it is missing.

    Args:
        path: The file. Its suffix decides the format, unless the options do.
        samples: float32 [num_samples] at 16 kHz.
        options: Further arguments of `soundfile.write`.
    """
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, **options)
