"""Audio in the page: what is encoded is the clip, and what is left out is counted by its reason."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording
from reported import write_audio

from arkasr.reporting.page.audio import AudioClips


@pytest.fixture
def cut(tmp_path):
    """Return a function that writes a clip of a length in seconds."""

    def write(seconds=1.0, name="clip"):
        recording = Recording.from_file(write_audio(tmp_path / f"{name}.wav", seconds))
        return MonoCut(name, 0, recording.duration, 0, recording=recording)

    return write


def test_clip_is_the_audio_of_the_cut(cut):
    address, reason = AudioClips(1).add(cut(0.8))
    assert reason == "" and address.startswith("data:audio/ogg;base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    expected, _ = soundfile.read(cut(0.8).recording.sources[0].source)
    assert rate == 16000 and len(samples) == len(expected)
    assert np.corrcoef(samples, expected)[0, 1] > 0.9


def test_clips_beyond_the_limit_are_left_out_and_counted(cut):
    size = len(AudioClips(1).add(cut())[0])
    clips = AudioClips(2.5 * size / 2**20)
    found = [clips.add(cut()) for _ in range(4)]
    assert [bool(address) for address, _ in found] == [True, True, False, False]
    assert clips.used == 2 * size and clips.clips == 2
    assert sum(clips.left_out.values()) == 2 and "beyond the limit" in found[3][1] and "2 beyond" in clips.summary()


def test_clips_that_cannot_be_shown_are_counted_by_reason(cut, tmp_path):
    missing, long = cut(name="missing"), cut(31.0, "long")
    (tmp_path / "missing.wav").unlink()
    clips = AudioClips(8)
    reasons = [clips.add(each)[1] for each in (missing, long, None)]
    assert reasons == ["missing audio file", "longer than 30 s", "its cut is not in the manifest any more"]
    assert all(f"1 {reason}" in clips.summary() for reason in reasons)


def test_no_clip_is_read_without_audio(cut, tmp_path):
    clips = AudioClips(0)
    assert clips.add(cut())[0] == "" and list(clips.left_out) == ["audio was not asked for (--audio_mib 0)"]
