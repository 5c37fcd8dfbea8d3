"""Say what a file holds that no decoder reads, by its first bytes."""

from __future__ import annotations

import os
from codecs import getincrementaldecoder
from typing import BinaryIO, NamedTuple

HEAD = 512  # bytes that are looked at
SHOWN_BYTES, SHOWN_TEXT = 8, 40
MOSTLY = 0.9  # of the characters of a text can be printed
# (offset, bytes, kind). `?` is any byte.
AUDIO = (
    (0, b"RIFF????WAVE", "WAV"), (0, b"RF64????WAVE", "WAV"), (0, b"riff", "Wave64"), (0, b"RIFF????AVI ", "AVI"),
    (0, b"fLaC", "FLAC"), (0, b"OggS", "Ogg"), (0, b"ID3", "MP3"), (0, b"\xff\xfa", "MP3"), (0, b"\xff\xfb", "MP3"),
    (0, b"\xff\xf2", "MP3"), (0, b"\xff\xf3", "MP3"), (0, b"\xff\xf1", "AAC"), (0, b"\xff\xf9", "AAC"),
    (0, b"FORM????AIF", "AIFF"), (0, b"caff", "CAF"), (0, b".snd", "AU"), (0, b"#!AMR", "AMR"),
    (4, b"ftyp", "M4A or MP4"), (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"), (0, b"0&\xb2u\x8ef\xcf\x11", "WMA"),
    (0, b"NIST_1A", "NIST SPHERE"),
)  # fmt: skip
OTHER = (
    (0, b"%PDF", "a PDF document"), (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"), (0, b"RIFF????WEBP", "a WebP picture"), (0, b"MThd", "a list of notes (MIDI)"),
    (0, b"PK\x03\x04", "a ZIP archive (unpack it)"), (0, b"\x1f\x8b", "packed by gzip (unpack it)"),
    (0, b"BZh", "packed by bzip2 (unpack it)"), (0, b"\xfd7zXZ", "packed by xz (unpack it)"),
    (0, b"7z\xbc\xaf", "a 7z archive (unpack it)"), (0, b"Rar!", "a RAR archive (unpack it)"),
    (257, b"ustar", "a tar archive (unpack it)"), (0, b"\x7fELF", "a program"),
    (0, b"version https://git-lfs", "the pointer of Git LFS to a file that is not here (run `git lfs pull`)"),
)  # fmt: skip
MARKUP = (("<!doctype html", "an HTML page"), ("<html", "an HTML page"), ("<", "XML or HTML"), ("{", "JSON"))
ENCODINGS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8-sig"))


class Content(NamedTuple):
    """What a file seems to hold.

    Attributes:
        what: A clause that begins with "it" or "its".
        is_audio: Whether it begins as files with audio do.
    """

    what: str
    is_audio: bool = False


def content_of(file: BinaryIO) -> Content:
    """Describe a file by its first bytes.

    Args:
        file: Seekable binary file. It is read from its start.

    Returns:
        The description. Quoted text has no control characters and at most 40 characters.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if not any(head):
        return Content(f"its first {len(head)} bytes are all 0, so it was probably not copied completely")
    if kind := _kind(head, AUDIO, size <= len(head)):
        return Content(f"it begins like {kind}, but is cut short or damaged ({size} bytes)", True)
    if kind := _kind(head, OTHER):
        return Content(f"it is {kind}")
    if text := _text(head):
        return Content(_text_kind(text))
    return Content(
        f"its first bytes are {head[:SHOWN_BYTES].hex(' ')} (hexadecimal), which no known format begins with"
    )


def _kind(head: bytes, kinds: tuple[tuple[int, bytes, str], ...], whole: bool = False) -> str:
    """Return the kind whose signature is there. `?` is any byte. A whole file may end within its signature."""
    for offset, signature, kind in kinds:
        found = head[offset : offset + len(signature)]
        fits = all(expected in (byte, ord("?")) for byte, expected in zip(found, signature))
        if fits and (len(found) == len(signature) or (whole and len(found) > 1)):
            return kind
    return ""


def _text(head: bytes) -> str:
    """Decode the start of a text. Empty if it is none."""
    encoding = next((name for mark, name in ENCODINGS if head.startswith(mark)), "utf-8")
    try:
        text = getincrementaldecoder(encoding)().decode(head).lstrip("\ufeff")  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    printable = sum(char.isprintable() or char.isspace() for char in text)
    return text if printable >= MOSTLY * len(text) else ""


def _text_kind(text: str) -> str:
    shown = " ".join("".join(char if char.isprintable() else " " for char in text).split())[:SHOWN_TEXT].rstrip()
    start = shown.lower()
    kind = next((kind for mark, kind in MARKUP if start.startswith(mark)), "text")
    return f"it is {kind} that begins with {shown!r}" if shown else "it holds white space only"
