from __future__ import annotations

from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from spoken_numbers import SILENCE, NumberDetector, recording

from arkasr.interfaces import SAMPLE_RATE
from arkasr.transcription.pauses import PauseCutter
from arkasr.transcription.stream import Stream
from arkasr.transcription.windows import Windows

FRAME = 512


class Script:
    """A detector that returns given flags."""

    def __init__(self, flags):
        self.flags, self.samples, self.frames = flags, 0, 0

    def advance(self, block):
        self.samples += len(block)
        first, self.frames = self.frames, self.samples // FRAME
        return self.flags[first : self.frames]

    def finish(self):
        return self.flags[self.frames :]


def cut_script(flags, size, block=8000):
    samples = torch.arange(len(flags) * FRAME) / 2**24
    found = Windows(samples.split(block), PauseCutter(size, Script(flags)))
    return list(found), found.notes


RUNS = st.lists(st.integers(1, 200), min_size=1, max_size=12)  # frames of silence and speech in turns


@given(RUNS, st.integers(SAMPLE_RATE, 4 * SAMPLE_RATE), st.integers(100, 40000))
@rules(max_examples=60, deadline=None)
def test_windows_hold_all_speech_and_fit(runs, size, block):
    flags = [bool(i % 2) for i, run in enumerate(runs) for _ in range(run)]
    found, _ = cut_script(flags, size, block)
    places = [(round(window.start * SAMPLE_RATE), round(window.end * SAMPLE_RATE)) for window in found]
    for (start, end), window in zip(places, found):
        assert 0 < end - start <= size
        assert torch.equal(window.waveform, torch.arange(start, end) / 2**24)
    for (_, end), (start, _), after in zip(places, places[1:], found[1:]):
        assert start >= end - round(after.overlap * SAMPLE_RATE)
        assert not after.overlap or end - start == round(after.overlap * SAMPLE_RATE)
    held = {frame for start, end in places for frame in range(-(-start // FRAME), end // FRAME)}
    first = 0
    for speech, run in groupby(flags):
        frames = set(range(first, first := first + len(list(run))))
        if speech and len(frames) * FRAME >= SAMPLE_RATE // 10:
            lost = frames - held
            # A cut of a window that is full is anywhere in a frame, which then is in neither window as a whole.
            assert all(any(start < (f + 1) * FRAME and end > f * FRAME for start, end in places) for f in lost)


@given(RUNS, st.integers(100, 40000))
@rules(max_examples=20, deadline=None)
def test_windows_do_not_depend_on_the_blocks(runs, block):
    flags = [bool(i % 2) for i, run in enumerate(runs) for _ in range(run)]
    places = [[(window.start, window.end) for window in cut_script(flags, 40000, b)[0]] for b in (block, 10**7)]
    assert places[0] == places[1]


def test_silence_between_speech_is_skipped_with_its_count_and_seconds():
    numbers = [SILENCE] * 5 + [1, 2, 3] + [SILENCE] * 10 + [4, 5] + [SILENCE] * 4
    found = Windows([recording(numbers, SAMPLE_RATE)], PauseCutter(8 * SAMPLE_RATE, NumberDetector()))
    places = [place for window in found for place in (window.start, window.end)]
    assert places == pytest.approx([4.85, 8.15, 17.85, 20.15], abs=0.033)  # one frame of the detector
    assert found.notes == ["cut at pauses into 2 windows", "skipped 3 stretches without speech, 18.4 s of 24.0 s"]


def test_a_full_window_is_cut_in_the_middle_of_its_longest_late_pause():
    flags = [True] * 100 + [False] * 6 + [True] * 40 + [False] * 12 + [True] * 40 + [False] * 5 + [True] * 60
    found, _ = cut_script(flags, 250 * FRAME)
    assert [window.end * SAMPLE_RATE / FRAME for window in found] == [152, len(flags)]
    assert [window.overlap for window in found] == [0, 0]


def test_speech_without_a_pause_gives_windows_that_overlap():
    found, notes = cut_script([True] * 1000, 4 * SAMPLE_RATE)
    assert [window.overlap for window in found] == [0, *[1.0] * (len(found) - 1)]
    assert notes == [f"cut at pauses into {len(found)} windows"]


def test_a_recording_of_one_window_stays_whole():
    found, notes = cut_script([False] * 60 + [True] * 4 + [False] * 60, 4 * SAMPLE_RATE)
    assert [(window.start, len(window.waveform)) for window in found] == [(0, 124 * FRAME)]
    assert notes == []


class Unread:
    """A detector that must not be used."""

    def __getattr__(self, name):
        raise AssertionError(name)


def test_short_recordings_are_kept_without_detection_unless_they_are_silent():
    size = 4 * SAMPLE_RATE
    found = Windows(torch.full((size,), 0.1).split(5000), PauseCutter(size, Unread(), keep_short=True))
    assert [(window.start, len(window.waveform)) for window in found] == [(0, size)] and found.notes == []
    found = Windows(torch.zeros(size).split(5000), PauseCutter(size, Unread(), keep_short=True))
    assert list(found) == []
    assert found.notes == ["no speech was found in 4.0 s of audio, so nothing was transcribed"]


@given(RUNS, st.integers(100, 40000))
@rules(max_examples=20, deadline=None)
def test_longer_recordings_are_cut_as_if_short_ones_were_not_kept(runs, block):
    flags = [bool(i % 2) for i, run in enumerate(runs) for _ in range(run)]
    samples, size = torch.ones(len(flags) * FRAME), 40000
    found = [
        [(window.start, window.end) for window in Windows(samples.split(block), PauseCutter(size, Script(flags), keep))]
        for keep in (False, True)
    ]
    assert found[0] == found[1] or len(samples) <= size


@pytest.mark.parametrize("seconds", [1, 60])
def test_silence_has_no_windows_and_says_so(seconds):
    found = Windows([recording([SILENCE] * seconds, SAMPLE_RATE)], PauseCutter(8 * SAMPLE_RATE, NumberDetector()))
    assert list(found) == []
    assert found.notes == [f"no speech was found in {seconds}.0 s of audio, so nothing was transcribed"]


def test_a_click_is_skipped():
    found, notes = cut_script([False] * 400 + [True] * 2 + [False] * 400 + [True] * 50 + [False] * 99, 4 * SAMPLE_RATE)
    assert [round(window.start, 2) for window in found] == [25.51]
    assert notes[0].startswith("skipped 2 stretches")


@pytest.mark.parametrize("number", [SILENCE, 1])
def test_an_hour_needs_no_more_memory_than_one_window(monkeypatch, number):
    held, append = [], Stream.append

    def counted(stream, block):
        append(stream, block)
        held.append(sum(map(len, stream._blocks)))

    monkeypatch.setattr(Stream, "append", counted)
    block = recording([number], SAMPLE_RATE)
    found = Windows((block for _ in range(3600)), PauseCutter(28 * SAMPLE_RATE, NumberDetector()))
    assert sum(1 for _ in found) == (0 if number == SILENCE else 150)
    assert len(held) == 3600
    assert max(held) <= 30 * SAMPLE_RATE


@pytest.mark.parametrize("seconds, pause, margin", [(28, 1.0, 0.3), (14, 0.5, 0.15), (4, 0.5, 0.15)])
def test_longer_windows_end_at_longer_pauses_and_keep_more_silence(seconds, pause, margin):
    speech, frames = [True] * 40, round(pause * SAMPLE_RATE / FRAME)
    for silence, count in ((frames - 2, 1), (frames + 2, 2)):
        flags = [False] * 60 + speech + [False] * silence + speech + [False] * 1000
        found, _ = cut_script(flags, seconds * SAMPLE_RATE)
        assert len(found) == count
        assert found[0].start == pytest.approx(60 * FRAME / SAMPLE_RATE - margin)
        last = len(flags) - 1000
        assert found[-1].end == pytest.approx(last * FRAME / SAMPLE_RATE + margin, abs=1e-4)
