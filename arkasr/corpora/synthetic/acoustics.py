"""What happens between a mouth and a file: level, room, noise. All seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arkasr.interfaces import SAMPLE_RATE

Span = tuple[float, float]


@dataclass(frozen=True)
class Condition:
    """Ranges to draw from: signal-to-noise ratio in dB, speech level in dB of full scale, and the room's
    reverberation time in seconds with its share of the energy (0 s: no room).
    """

    snr_db: Span
    level_db: Span = (-30.0, -20.0)
    room_s: Span = (0.0, 0.0)
    room_share: float = 0.0


def silence(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Return low to high seconds of zeros (float32)."""
    return np.zeros(int(rng.uniform(low, high) * SAMPLE_RATE), dtype=np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + 1e-12


def _noise(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return unit-RMS noise whose colour lies between white and a room's low rumble."""
    from scipy.signal import lfilter

    colour = rng.uniform(0.0, 0.95)
    noise = lfilter([1.0], [1.0, -colour], rng.standard_normal(length))
    return noise / _rms(noise)


def _room(samples: np.ndarray, seconds: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """Add a diffuse tail that falls by 60 dB in `seconds`, with `share` of the energy."""
    from scipy.signal import fftconvolve

    length = int(seconds * SAMPLE_RATE)
    if length < 2:
        return samples
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * np.arange(length) / length)
    wet = fftconvolve(samples, tail)[: len(samples)]
    return np.sqrt(1 - share) * samples / _rms(samples) + np.sqrt(share) * wet / _rms(wet)


def record(speech: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
    """Put speech into a condition.

    speech: float32 [num_samples] at 16 kHz. Returns float32 [num_samples], never clipped.
    """
    level = 10.0 ** (rng.uniform(*condition.level_db) / 20)
    snr = 10.0 ** (rng.uniform(*condition.snr_db) / 20)
    wet = _room(speech, rng.uniform(*condition.room_s), condition.room_share, rng)
    mixed = level * (wet / _rms(wet) + _noise(rng, len(wet)) / snr)
    return (mixed / max(1.0, np.abs(mixed).max() / 0.99)).astype(np.float32)
