from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from sounds import heard, spoken

from arkasr.errors import UserError
from arkasr.transcription.audio import open_audio

av = pytest.importorskip("av")
WORDS = ("two", "seven", "four")


def encoded(container: str, codec: str, rate: int = 44100, layout: str = "stereo", video: bool = False) -> bytes:
    """Encode the words by FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        if video:
            picture = output.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        stream = output.add_stream(codec, rate=rate, layout=layout)
        samples = np.ascontiguousarray(spoken(*WORDS, rate=rate, channels=len(stream.layout.channels)).T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        if video:
            for _ in range(15):
                output.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
            output.mux(picture.encode(None))
        resampler = av.AudioResampler(stream.format, layout, stream.rate, stream.frame_size or 1024)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


def read(data, **options):
    stream = open_audio(data, **options)
    return torch.cat(list(stream)), stream


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("ipod", "aac", {}),  # .m4a
        ("adts", "aac", {"rate": 16000, "layout": "mono"}),
        ("webm", "libopus", {"rate": 48000}),
        ("matroska", "aac", {}),
        ("mp4", "aac", {"video": True}),
    ],
)
def test_formats_beyond_libsndfile_are_read(container, codec, options):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    data = encoded(container, codec, **options)
    waveform, stream = read(data)
    # AAC delays by up to 2048 samples in containers that do not say so
    shift = round(stream.seconds * 16000) - 48000
    found = heard(waveform[max(shift, 0) :]) if container == "adts" else heard(waveform)
    assert found == " ".join(WORDS)
    assert stream.seconds == pytest.approx(3.0, abs=0.2) and stream.notes == []


def test_segments_of_m4a(tmp_path):
    (tmp_path / "a.m4a").write_bytes(encoded("ipod", "aac"))
    assert heard(read(tmp_path / "a.m4a", begin=1.0, end=2.0)[0]) == "seven"


def test_a_truncated_m4a_is_an_error_and_a_truncated_webm_a_note():
    data = encoded("ipod", "aac")
    with pytest.raises(UserError, match="cannot be read as audio"):  # its index is at its end
        read(data[: len(data) // 2])
    if "libopus" in av.codecs_available:
        data = encoded("webm", "libopus", rate=48000)
        waveform, stream = read(data[: 2 * len(data) // 3])
        assert heard(waveform).startswith("two") and stream.notes


def test_a_video_without_sound_is_an_error():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        output.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(picture.encode(None))
    with pytest.raises(UserError, match="holds no audio"):
        read(file.getvalue())


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
    ],
)
def test_playlists_are_not_followed(tmp_path, playlist):
    (tmp_path / "secret.m4a").write_bytes(encoded("ipod", "aac"))
    (tmp_path / "list.m3u8").write_text(playlist.format(path=tmp_path / "secret.m4a"))
    with pytest.raises(UserError, match="cannot be read as audio"):
        read(tmp_path / "list.m3u8")
