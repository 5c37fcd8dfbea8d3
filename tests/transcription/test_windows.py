from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription import windows
from arkasr.transcription.settings import Settings
from arkasr.transcription.stream import Stream
from arkasr.transcription.windows import cut

FIXED = Settings(segmentation="fixed", window_seconds=8.0)


def ramp(seconds: float) -> torch.Tensor:
    return torch.arange(int(seconds * SAMPLE_RATE)) / 2**24  # each sample has a value of its own


@given(st.integers(1, 10 * SAMPLE_RATE), st.integers(2000, 3 * SAMPLE_RATE))
@rules(max_examples=40, deadline=None)
def test_fixed_windows_hold_all_samples_in_order(total, block):
    samples = torch.arange(total) / 2**24
    found = list(cut(samples.split(block), Settings(segmentation="fixed", window_seconds=2.0)))
    assert all(len(window.waveform) <= 2 * SAMPLE_RATE for window in found)
    for window in found:
        first = round(window.start * SAMPLE_RATE)
        assert torch.equal(window.waveform, samples[first : first + len(window.waveform)])
    assert found[0].start == found[0].overlap == 0
    assert round(found[-1].end * SAMPLE_RATE) == total
    for before, after in pairwise(found):
        assert before.end - after.start == pytest.approx(after.overlap) == 0.5
        assert after.end > before.end


def test_a_recording_of_one_window_stays_whole():
    found = cut([ramp(8)], FIXED)
    assert [(window.start, window.end) for window in found] == [(0, 8)]
    assert found.notes == []


def test_an_empty_recording_has_no_windows():
    assert list(cut([], FIXED)) == list(cut([torch.zeros(0)], FIXED)) == []


def test_windows_are_cut_while_the_recording_is_read():
    read = 0

    def blocks():
        nonlocal read
        for _ in range(100):
            read += 1
            yield torch.zeros(SAMPLE_RATE)

    found = cut(blocks(), FIXED)
    next(found)
    assert read <= 9


def test_an_hour_needs_no_more_memory_than_three_windows(monkeypatch):
    held, append = [], Stream.append

    def counted(stream, block):
        append(stream, block)
        held.append(sum(map(len, stream._blocks)))

    monkeypatch.setattr(Stream, "append", counted)
    found = cut((torch.zeros(SAMPLE_RATE // 2) for _ in range(7200)), Settings(segmentation="fixed"))
    assert sum(1 for _ in found) == math.ceil((3600 - 4) / 24)
    assert len(held) == 7200
    assert max(held) <= 29 * SAMPLE_RATE


def test_samples_that_are_no_numbers_are_read_as_zero_with_a_note():
    samples = ramp(20)
    samples[12 * SAMPLE_RATE : 12 * SAMPLE_RATE + 2] = torch.tensor([math.nan, math.inf])
    found = cut(samples.split(5000), FIXED)
    waveforms = [window.waveform for window in found]
    assert all(waveform.isfinite().all() for waveform in waveforms)
    assert waveforms[1][6 * SAMPLE_RATE :][:3].tolist() == [0, 0, samples[12 * SAMPLE_RATE + 2]]
    assert found.notes[0] == "2 samples are NaN or infinite, the first at 12.00 s: they were read as 0"


def test_auto_without_the_detector_says_that_windows_overlap(monkeypatch):
    monkeypatch.setattr(windows, "find_spec", lambda name: None)
    found = cut([ramp(20)], Settings(window_seconds=8.0))
    assert len(list(found)) == 3
    assert found.notes == [
        "cut into 3 windows that overlap by 2 s, because no detector of pauses is installed (pip install "
        "'arkasr[transcribe]' adds one)"
    ]


def test_pauses_without_the_detector_is_an_error(monkeypatch):
    monkeypatch.setattr(windows, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"segmentation pauses: needs the package silero-vad.*arkasr\[transcribe\]"):
        cut([], Settings(segmentation="pauses"))


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.5, math.nan, math.inf])
def test_windows_that_are_too_short_are_an_error(seconds):
    with pytest.raises(UserError, match="window_seconds .* must be at least 1"):
        cut([], Settings(window_seconds=seconds))
