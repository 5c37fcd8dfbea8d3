"""Files that no decoder reads: each message names the file, what it holds, and what to do."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from sounds import write

from arkasr.errors import UserError
from arkasr.transcription import opening
from arkasr.transcription.audio import open_audio
from arkasr.transcription.content import AUDIO, content_of

TEXT = b"these are words\n" * 50
SUFFIXES = ("wav", "mp3", "m4a", "flac", "ogg", "opus", "aiff", "au", "snd", "vox", "gsm", "caf", "webm", "wma", "txt")


def error_of(source, **options):
    with pytest.raises(UserError) as raised:
        list(open_audio(source, **options))
    return str(raised.value)


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", TEXT)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    return file.getvalue()


NO_AUDIO = {
    "page.mp3": (b"\n<!DOCTYPE html>\n<title>404</title>", "an HTML page that begins with '<!DOCTYPE html> <title>404"),
    "other page.wav": (b"<HTML><body>", "an HTML page that begins with '<HTML><body>'"),
    "answer.mp3": (b'{"error": "quota"}', """JSON that begins with '{"error": "quota"}'"""),
    "denied.wav": (b'<?xml version="1.0"?><Error/>', "XML or HTML that begins with"),
    "pointer.flac": (b"version https://git-lfs.github.com/spec/v1\n", "the pointer of Git LFS"),
    "list.mp3": (b"#EXTM3U\na.mp3\n", "text that begins with '#EXTM3U a.mp3'"),
    "chinese.wav": ("这不是音频".encode(), "text that begins with '这不是音频'"),
    "wide.wav": ("hello".encode("utf-16"), "text that begins with 'hello'"),
    "marked.wav": (b"\xef\xbb\xbfhello", "text that begins with 'hello'"),
    "dangerous.wav": (
        b"this is red \x1b[31m \xe2\x80\xae text\n" * 9,
        "begins with 'this is red [31m text this is red",
    ),
    "paper.mp3": (b"%PDF-1.7\n\xe2\xe3\xcf\xd3", "it is a PDF document"),
    "cover.mp3": (b"\xff\xd8\xff\xe0\0\x10JFIF", "it is a JPEG picture"),
    "web picture.wav": (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(90), "it is a WebP picture"),
    "archive.wav": (zipped(), "it is a ZIP archive (unpack it)"),
    "tar.wav": (tarred(), "it is a tar archive (unpack it)"),
    "packed.wav": (gzip.compress(TEXT), "it is packed by gzip (unpack it)"),
    "zeros.wav": (bytes(5000), "its first 512 bytes are all 0, so it was probably not copied completely"),
    "noise.wav": (b"\x5f\x82\xc2\xd9" * 900, "its first bytes are 5f 82 c2 d9 5f 82 c2 d9 (hexadecimal)"),
    "blank.wav": (b" \n\n", "it holds white space only"),
}


@pytest.mark.parametrize("name", NO_AUDIO)
def test_a_file_without_audio_is_described_and_the_formats_are_named(tmp_path, name):
    data, what = NO_AUDIO[name]
    (tmp_path / name).write_bytes(data)
    for source, options in ((tmp_path / name, {}), (data, {"name": name}), (io.BytesIO(data), {"name": name})):
        message = error_of(source, **options)
        assert f"{name}: cannot be read as audio: " in message and what in message
        assert "name a file in one of these formats: WAV, FLAC, MP3" in message and message.isprintable()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_text_is_text_whatever_its_name(tmp_path, suffix):
    """libsndfile reads any file as samples if its name ends in .au or .vox, and FFmpeg guesses by the name too."""
    (tmp_path / f"text.{suffix}").write_bytes(TEXT)
    message = error_of(tmp_path / f"text.{suffix}")
    assert f"text.{suffix}: cannot be read as audio: it is text that begins with 'these are words these" in message


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff", "caf"])
@pytest.mark.parametrize("size", [3, 4, 11, 20])
def test_a_file_that_ends_in_its_header_is_cut_short(tmp_path, suffix, size):
    data = open(write(tmp_path / f"whole.{suffix}", "one"), "rb").read()[:size]  # noqa: SIM115
    message = error_of(data, name=f"a.{suffix}")
    kind = "Ogg" if suffix == "ogg" else suffix.upper()
    assert f"a.{suffix}: cannot be read as audio: it begins like {kind}, but " in message
    assert f"is cut short or damaged ({size} bytes)" in message and "check that it is complete" in message


def test_a_folder_named_like_a_file_is_a_folder(tmp_path):
    (tmp_path / "a.wav").mkdir()
    assert error_of(tmp_path / "a.wav") == f"{tmp_path / 'a.wav'}: is a folder; name a file with audio"
    assert error_of("/dev/zero") == "/dev/zero: is a device or a socket, not a file; name a file with audio"


def test_text_needs_no_pyav_to_be_known_as_text(monkeypatch):
    def absent(*_):
        raise ImportError("No module named 'av'")

    monkeypatch.setattr(opening, "read_av_file", absent)
    assert "it is text that begins with" in error_of(TEXT) and "pip install" not in error_of(TEXT)
    assert "pip install 'arkasr[transcribe]'" in error_of(b"\0\0\0 ftypM4A ")


@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"", *(mark for at, mark, _ in AUDIO if not at)]))
@rules(max_examples=150, deadline=None)
def test_any_bytes_are_described_or_read(data, start):
    data = start + data
    assert content_of(io.BytesIO(data)).what.startswith(("it ", "its "))
    try:
        samples = sum(map(len, open_audio(data, "upload.wav")))
    except UserError as error:
        assert str(error).startswith("upload.wav: ") and str(error).isprintable()
    else:
        assert samples > 0


def test_the_text_that_is_quoted_is_short():
    content = content_of(io.BytesIO(b"x" * 100_000))
    assert content.what == f"it is text that begins with '{'x' * 40}'" and not content.is_audio


def test_cut_letters_at_the_end_of_the_start_are_still_text():
    for shift in range(4):
        assert content_of(io.BytesIO(b"x" * shift + "语".encode() * 400)).what.startswith("it is text that begins with")


def test_random_bytes_are_no_text():
    generator = np.random.default_rng(0)
    assert all("text" not in content_of(io.BytesIO(generator.bytes(200))).what for _ in range(200))
