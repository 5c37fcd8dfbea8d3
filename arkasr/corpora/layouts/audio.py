"""The headers of audio files, and the utterances whose audio cannot be used."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arkasr.corpora.layouts.entries import (
    BACKWARDS,
    BAD_PATH,
    BEFORE_BEGIN,
    EMPTY,
    NO_AUDIO,
    PAST_END,
    TOO_SHORT,
    UNREADABLE,
    Entry,
)
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.console import track

# Transcripts round the ends of segments, and opus rounds lengths to whole frames. A segment that ends at most this
# much after its recording is kept and trimmed.
END_TOLERANCE_S = 0.1


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one audio file.

    Attributes:
        frames: Number of samples per channel.
        rate: Sampling rate in Hz.
        channels: Number of channels.
        reason: Why the file cannot be used. Empty if it can.
    """

    frames: int = 0
    rate: int = 0
    channels: int = 0
    reason: str = ""


def read_header(path: Path) -> Header:
    """Read the header of an audio file, and its last sample to detect a truncated file without decoding all of it.

    Args:
        path: The file.

    Returns:
        The header. `reason` is set if the file is missing, empty, truncated or not audio.
    """
    import soundfile

    try:
        str(path).encode()
        if not path.is_file():
            return Header(reason=NO_AUDIO)
        if path.stat().st_size == 0:
            return Header(reason=EMPTY)
        with soundfile.SoundFile(path) as audio:
            if audio.frames <= 0:
                return Header(reason=EMPTY)
            audio.seek(audio.frames - 1)
            complete = len(audio.read(1)) == 1
            return Header(audio.frames, audio.samplerate, audio.channels, "" if complete else UNREADABLE)
    except UnicodeEncodeError:  # the name of a file, or a field of the transcript, with bytes that are not UTF-8
        return Header(reason=BAD_PATH)
    except (soundfile.SoundFileError, OSError):
        return Header(reason=UNREADABLE)


def check_audio(entries: list[Entry], num_jobs: int) -> dict[Path, Header]:
    """Read the header of every audio file of usable entries, and give the unusable entries their reason.

    Args:
        entries: Entries of all parts, changed in place.
        num_jobs: Number of threads.

    Returns:
        The headers by path.
    """
    paths = list(dict.fromkeys(entry.audio for entry in entries if not entry.reason and entry.cut is None))
    with ThreadPoolExecutor(max(1, num_jobs)) as pool:
        headers = dict(zip(paths, list(track(pool.map(read_header, paths), "Checking audio", len(paths), "files"))))
    for entry in entries:
        if not entry.reason and entry.cut is None:
            entry.reason = _audio_reason(entry, headers[entry.audio])
    return headers


def _audio_reason(entry: Entry, header: Header) -> str:
    if header.reason or (entry.begin == 0 and entry.end is None):
        return header.reason
    length = header.frames / header.rate
    end = length if entry.end is None else entry.end
    if entry.begin < 0:
        return BEFORE_BEGIN
    if entry.end is not None and end <= entry.begin:
        return BACKWARDS
    if end > length + END_TOLERANCE_S or entry.begin >= length:
        return PAST_END
    return "" if (min(end, length) - entry.begin) * SAMPLE_RATE >= 1 else TOO_SHORT
