"""Resampling to 16 kHz in a stream: the same samples as those of the whole signal, in flat memory."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from arkasr.interfaces import SAMPLE_RATE

ZEROS = 10  # zero crossings of the low-pass filter on each side of its centre, as in scipy.signal.resample_poly
# Longest terms of a ratio, because the filter has 20 taps per step. All rates up to it are exact. Of odd rates above
# it, the nearest ratio is off by less than 1 in 80,000.
MOST_STEPS = 100_000


class Resampler:
    """Resamples one mono signal, block by block, by polyphase filtering (`scipy.signal.resample_poly`).

    Args:
        rate: Sampling rate of the signal in Hz.
    """

    def __init__(self, rate: int):
        self._up, self._down = steps(rate)
        self._taps = _low_pass(max(self._up, self._down)) if self._up != self._down else None
        reach = -(-ZEROS * max(self._up, self._down) // self._up)  # input samples that one output sample looks at
        self._context = self._down * -(-reach // self._down)
        self._held = np.zeros(0, np.float32)
        self._left = 0  # samples of `_held` that are resampled already

    def feed(self, block: np.ndarray) -> np.ndarray:
        """Resample what is complete so far.

        Args:
            block: float32 [n], the next samples of the signal.

        Returns:
            float32 [m], the next samples at 16 kHz.
        """
        if self._taps is None:
            return block
        self._held = np.concatenate([self._held, block])
        ready = (len(self._held) - self._left - self._context) // self._down * self._down
        return self._resample(ready, self._context) if ready > 0 else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """Resample the rest of the signal.

        Returns:
            float32 [m], the last samples at 16 kHz.
        """
        return self._resample(len(self._held) - self._left, 0)

    def _resample(self, new: int, right: int) -> np.ndarray:
        """Resample the next `new` samples, with context on both sides, and keep the context of those that follow."""
        if new <= 0:
            return np.zeros(0, np.float32)
        from scipy.signal import resample_poly

        used = self._held[: self._left + new + right]
        done = resample_poly(used, self._up, self._down, window=self._taps)
        begin, count = self._left * self._up // self._down, -(-new * self._up // self._down)
        kept = min(self._left + new, self._context)
        self._held, self._left = self._held[self._left + new - kept :], kept
        return done[begin : begin + count].astype(np.float32, copy=False)


def steps(rate: int) -> tuple[int, int]:
    """Return by how many steps a signal is interpolated, and of how many of those one is kept.

    Args:
        rate: Sampling rate in Hz.

    Returns:
        Both numbers, in lowest terms.
    """
    ratio = Fraction(SAMPLE_RATE, rate).limit_denominator(MOST_STEPS)
    return ratio.numerator, ratio.denominator


def _low_pass(most: int) -> np.ndarray:
    from scipy.signal import firwin

    return firwin(2 * ZEROS * most + 1, 1.0 / most, window=("kaiser", 5.0)).astype(np.float32)
