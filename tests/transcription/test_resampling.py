from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import resample_poly

from arkasr.transcription.resampling import Resampler, steps


def in_blocks(samples, rate, sizes):
    resampler, found, start = Resampler(rate), [], 0
    for size in sizes:
        found.append(resampler.feed(samples[start : start + size]))
        start += size
    return np.concatenate([*found, resampler.feed(samples[start:]), resampler.finish()])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_resampling_in_blocks_equals_resampling_of_the_whole_signal(rate):
    samples = np.random.default_rng(rate).standard_normal(rate + 123).astype(np.float32)
    divisor = np.gcd(rate, 16000)
    whole = resample_poly(samples, 16000 // divisor, rate // divisor)
    found = in_blocks(samples, rate, [1, 777, rate // 3, 2])
    assert found.dtype == np.float32 and len(found) == len(whole)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("rate", [44101, 7999, 767_999])
def test_odd_rates_keep_pitch_and_length(rate):
    times = np.arange(2 * rate) / rate
    found = in_blocks(np.sin(2 * np.pi * 440 * times).astype(np.float32), rate, [rate])
    assert abs(len(found) - 32000) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16000)
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=1e-2)


def test_ratios_are_exact_or_nearly_so():
    for rate in (*range(1000, 768_000, 997), 99_999, 100_001, 112_001, 768_000):
        up, down = steps(rate)
        error = abs(up / down * rate / 16000 - 1)
        assert error < 1e-12 if rate <= 100_000 else error < 1 / 80_000, rate


def test_16_khz_stays_as_it_is():
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert np.array_equal(in_blocks(samples, 16000, [30]), samples)


def test_memory_does_not_grow_with_the_length():
    resampler, block = Resampler(44100), np.zeros(44100, np.float32)
    for _ in range(30):
        resampler.feed(block)
    assert len(resampler._held) < 2 * 44100
