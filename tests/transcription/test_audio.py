from __future__ import annotations

import io
import os
import threading
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from sounds import heard, spoken, write

from arkasr.errors import UserError
from arkasr.transcription import opening
from arkasr.transcription.audio import SILENT, open_audio

WORDS = ("one", "five", "nine")


def read(source, **options):
    stream = open_audio(source, **options)
    return torch.cat(list(stream)), stream


def error_of(source, **options):
    with pytest.raises(UserError) as raised:
        read(source, **options)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.WAV", {"format": "WAV", "subtype": "FLOAT"}),
        ("a.flac", {}),
        ("a.ogg", {"subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
        ("a.aiff", {}),
        ("named like text.txt", {"format": "FLAC"}),
        ("会议 录音 (1).wav", {}),
    ],
)
def test_formats_of_libsndfile_are_read(tmp_path, name, options):
    path = write(tmp_path / name, *WORDS, **options)
    waveform, stream = read(path)
    assert heard(waveform) == " ".join(WORDS)
    assert stream.seconds == pytest.approx(3.0, abs=0.1) and stream.notes == []
    for source in (open(path, "rb").read(), open(path, "rb")):  # noqa: SIM115
        assert torch.equal(read(source)[0], waveform)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_number_of_channels_is_read(tmp_path, rate, channels):
    waveform, stream = read(write(tmp_path / "a.wav", *WORDS, rate=rate, channels=channels))
    assert heard(waveform) == " ".join(WORDS) and len(waveform) == 48000
    assert stream.seconds == 3.0


def test_channels_are_mixed_by_their_mean(tmp_path):
    channels = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], channels.mean(1), atol=1e-6)


def test_mp3_in_blocks_equals_mp3_in_one_read(tmp_path):
    sweep = np.sin(np.cumsum(np.linspace(0.05, 1.5, 16000 * 20))).astype(np.float32)
    soundfile.write(tmp_path / "a.mp3", sweep, 16000)
    whole, _ = soundfile.read(tmp_path / "a.mp3", dtype="float32")
    np.testing.assert_allclose(read(tmp_path / "a.mp3")[0], whole, atol=1e-5)


def test_segments_begin_and_end_where_they_should(tmp_path):
    for name in ("a.wav", "a.mp3"):  # of which one is sought, and the other decoded from its start
        path = write(tmp_path / name, "one", "two", "three", "four", rate=44100)
        waveform, stream = read(path, begin=1.0, end=3.0)
        assert heard(waveform) == "two three" and len(waveform) == 32000 and stream.notes == []


def test_a_segment_beyond_the_audio_is_an_error_or_a_note(tmp_path):
    path = write(tmp_path / "a.wav", "one", "two")
    assert "holds 0 samples" in error_of(path, begin=5.0, end=6.0)
    waveform, stream = read(path, begin=1.0, end=4.0)
    assert heard(waveform) == "two"
    assert stream.notes == ["the audio ends 2.0 s before the end of the segment"]


@pytest.mark.parametrize(("name", "left"), [("a.wav", 0.6), ("a.mp3", 0.6), ("a.flac", 0.6)])
def test_a_truncated_file_is_read_to_its_end_with_a_note(tmp_path, name, left):
    path = write(tmp_path / name, *["three"] * 10)
    data = open(path, "rb").read()  # noqa: SIM115
    (tmp_path / f"cut {name}").write_bytes(data[: int(left * len(data))])
    waveform, stream = read(tmp_path / f"cut {name}")
    assert set(heard(waveform).split()) == {"three"} and 5.0 < stream.seconds < 7.0
    assert any("is cut short or damaged" in note and "declares 10.0 s" in note for note in stream.notes)


def test_damage_inside_a_file_costs_little_and_gives_a_note(tmp_path):
    pytest.importorskip("av")  # reads what follows the damage
    path = write(tmp_path / "a.flac", *["four"] * 10)
    data = bytearray(open(path, "rb").read())  # noqa: SIM115
    data[len(data) // 2 : len(data) // 2 + 50] = bytes(50)
    (tmp_path / "a.flac").write_bytes(data)
    waveform, stream = read(tmp_path / "a.flac")
    assert 9.0 < stream.seconds < 10.0 and len(waveform) == round(16000 * stream.seconds)
    assert any("could not be decoded" in note for note in stream.notes)


def test_wav_written_into_a_pipe_declares_no_length(tmp_path):
    data = bytearray(open(write(tmp_path / "a.wav", "one"), "rb").read())  # noqa: SIM115
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    waveform, stream = read(bytes(data))
    assert heard(waveform) == "one" and stream.notes == []


def test_silence_is_read_with_a_note(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    waveform, stream = read(tmp_path / "a.wav")
    assert len(waveform) == 16000 and stream.notes == [SILENT]


def test_a_file_that_cannot_seek_is_copied(tmp_path):
    path = write(tmp_path / "a.flac", "one", "two")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(open(path, "rb").read()))  # noqa: SIM115
    writer.start()
    assert heard(read(fifo)[0]) == "one two"
    writer.join()


def written(path, samples, **options):
    soundfile.write(path, np.asarray(samples, np.float32), options.pop("rate", 16000), subtype="FLOAT")
    return path


def test_what_is_no_audio_gives_its_reason(tmp_path):
    (tmp_path / "text.wav").write_text("these are words\n" * 50)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "samples.raw").write_bytes(bytes(1000))
    os.symlink(tmp_path / "nothing", tmp_path / "link.wav")
    reasons = {
        tmp_path / "text.wav": "cannot be read as audio",
        tmp_path / "empty.wav": "is empty (0 bytes)",
        tmp_path / "samples.raw": "raw samples have no header",
        tmp_path / "link.wav": "no such file",
        tmp_path / "absent.wav": "no such file",
        tmp_path: "is a folder",
        "/dev/zero": "is a device",
        "cat a.wav |": "is a command, which is never run",
        "pipe:cat a.wav": "is a command, which is never run",
        "https://example.com/a.wav": "is an address, which is not read",
        "a\0b.wav": "is not the name of a file",
        written(tmp_path / "none.wav", []): "holds 0 samples",
        written(tmp_path / "nan.wav", [0.1, np.nan]): "NaN or infinite",
        written(tmp_path / "inf.wav", [0.1, np.inf]): "NaN or infinite",
        written(tmp_path / "scale.wav", [12000.0, -9000.0]): "full scale is 1",
        written(tmp_path / "slow.wav", [0.1] * 100, rate=400): "the sampling rate is 400 Hz",
    }
    for source, reason in reasons.items():
        message = error_of(source)
        assert reason in message and str(source).splitlines()[0].replace("\0", "\\x00") in message


def test_nan_is_found_late_in_a_file(tmp_path):
    samples = np.concatenate([spoken("one", "two")[:, 0], [np.nan]])
    assert "NaN" in error_of(written(tmp_path / "a.wav", samples))


def test_missing_pyav_is_named_with_its_command(tmp_path, monkeypatch):
    def absent(*_):
        raise ImportError("No module named 'av'")

    monkeypatch.setattr(opening, "read_av_file", absent)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    message = error_of(tmp_path / "a.m4a")
    assert "pip install 'arkasr[transcribe]'" in message and "a.m4a" in message


def test_a_path_that_vanishes_after_it_was_listed_is_an_error(tmp_path):
    path = write(tmp_path / "a.wav", "one")
    os.remove(path)
    assert "no such file" in error_of(path)


@pytest.mark.slow
def test_memory_is_flat_for_ten_minutes_of_stereo(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 44100, 2, subtype="PCM_16") as file:
        for _ in range(600):
            file.write(spoken("three", rate=44100, channels=2))
    tracemalloc.start()
    seconds = sum(len(block) for block in open_audio(tmp_path / "a.wav")) / 16000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds == 600 and peak < 8 * 2**20


def test_an_open_file_of_the_caller_stays_open(tmp_path):
    file = io.BytesIO(open(write(tmp_path / "a.wav", "one"), "rb").read())  # noqa: SIM115
    assert heard(read(file, name="upload")[0]) == "one" and not file.closed
    file.seek(0)
    assert heard(read(file)[0]) == "one"
