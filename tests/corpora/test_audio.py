"""Headers of audio files, and the times of segments in long recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora_on_disk import tone

from arkasr.corpora.layouts.audio import Header, Headers, check_audio, read_header
from arkasr.corpora.layouts.entries import Entry


def test_read_header_counts_frames_and_channels(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(0.5, 8000, 2), 8000)
    assert read_header(tmp_path / "a.flac") == Header(4000, 8000, 2)


def test_read_header_gives_every_unusable_file_a_reason(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "folder.wav").mkdir()
    reasons = {name: read_header(tmp_path / f"{name}.wav").reason for name in
               ("empty", "zero", "text", "gone", "loop", "folder", "missing", "x" * 300, "\udcff", "a\0b")}  # fmt: skip
    assert list(reasons.values()) == [
        "audio is empty", "audio is empty", "audio cannot be read", *["audio file is missing"] * 4,
        "audio cannot be read", "path of the audio is not UTF-8", "audio file is missing",
    ]  # fmt: skip


def test_read_header_counts_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def forbidden(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", forbidden)
    assert read_header(tmp_path / "a.wav").reason == "audio cannot be read"


@pytest.mark.parametrize(
    "begin, end, reason",
    [
        (0.0, 1.0, ""),
        (0.5, 1.1, ""),  # transcripts round
        (-0.01, 1.0, "begins before its recording"),
        (0.5, 0.5, "ends before it begins"),
        (0.5, 0.4, "ends before it begins"),
        (0.5, 1.11, "ends after its recording"),
        (1.0, 1.05, "ends after its recording"),  # nothing would be left of it
        (0.5, 1e300, "ends after its recording"),
        (0.5, 0.50001, "shorter than one sample"),
        (0.99999, 1.05, "shorter than one sample"),
    ],
)
def test_check_audio_compares_times_with_the_recording(tmp_path, begin, end, reason):
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16000)
    entries = [Entry("L", "1", tmp_path / "a.wav", "text", begin=begin, end=end)]
    check_audio(entries, Headers(1))
    assert entries[0].reason == reason
