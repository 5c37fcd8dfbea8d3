"""The headers of audio files, and the utterances whose audio cannot be used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

# Transcripts round the ends of segments, and opus rounds lengths to whole frames. A segment that ends at most this
# much after its recording is kept and trimmed.
END_TOLERANCE_S = 0.1
MOST_HEADERS = 65_536  # that are remembered. Segments of a recording are mostly neighbours


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


class Headers:
    """The headers of audio files, read by threads. Those of the files that were used last are remembered.

    Args:
        num_jobs: Number of threads.

    Attributes:
        num_files_with_channels: Number of files with several channels of which `count_channels` was told.
    """

    def __init__(self, num_jobs: int):
        self._pool = ThreadPoolExecutor(max(1, num_jobs))
        self._known: OrderedDict[Path, Header] = OrderedDict()
        self._counted: set[Path] = set()
        self.num_files_with_channels = 0

    def read(self, paths: Iterable[Path]) -> dict[Path, Header]:
        """Read headers.

        Args:
            paths: The files.

        Returns:
            Their headers.
        """
        wanted = list(dict.fromkeys(paths))
        new = [path for path in wanted if path not in self._known]
        self._known.update(zip(new, self._pool.map(read_header, new), strict=True))
        for path in wanted:
            self._known.move_to_end(path)
        found = {path: self._known[path] for path in wanted}
        while len(self._known) > MOST_HEADERS:
            self._counted.discard(self._known.popitem(last=False)[0])
        return found

    def count_channels(self, path: Path, header: Header) -> None:
        """Count a file that is used, if it has several channels and was not counted before.

        Args:
            path: The file.
            header: Its header.
        """
        if header.channels > 1 and path not in self._counted:
            self._counted.add(path)
            self.num_files_with_channels += 1

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def check_audio(entries: Sequence[Entry], known: Headers) -> dict[Path, Header]:
    """Read the header of every audio file of usable entries, and give the unusable entries their reason.

    Args:
        entries: Some entries, changed in place. The audio of Lhotse's cuts is compared with their description, unless
            it is in a tar file, at an address, or in several files.
        known: Reads the headers.

    Returns:
        The headers by path.
    """
    files = [None if entry.reason else _audio_file(entry) for entry in entries]
    headers = known.read(path for path in files if path is not None)
    for entry, path in zip(entries, files, strict=True):
        if path is not None:
            header = headers[path]
            entry.reason = _audio_reason(entry, header) if entry.cut is None else _cut_reason(entry.cut, header)
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


def _audio_file(entry: Entry) -> Path | None:
    """Return the file to look at. None for Lhotse's cuts that are mixed or have another kind of audio."""
    if entry.cut is None:
        return entry.audio
    sources = (entry.cut.get("recording") or {}).get("sources", ())
    return entry.audio if len(sources) == 1 and sources[0]["type"] == "file" else None


def _cut_reason(cut: dict[str, Any], header: Header) -> str:
    from arkasr.data.reasons import UNLIKE

    recording = cut["recording"]
    if header.reason or recording.get("transforms"):  # lengths after transformations are not those of the file
        return header.reason
    same = (recording["num_samples"], recording["sampling_rate"]) == (header.frames, header.rate)
    return "" if same and set(recording["sources"][0]["channels"]) <= set(range(header.channels)) else UNLIKE
