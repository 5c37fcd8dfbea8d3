"""Audio files that libsndfile reads: WAV, FLAC, Ogg, Opus, MP3, AIFF, CAF and others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile

from arkasr.transcription.decoded import Decoded, damage_note, short_note, without_start

UNRECOGNISED = 1  # libsndfile's number of the error
READ = 4096  # samples per channel and read. A damaged place costs at most one read
Rest = Callable[[int], Iterator[np.ndarray]]
SEEKABLE = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF")  # others, such as MP3, seek inexactly
STREAMED = 0x7FFFF000  # bytes. Programs that write WAV into a pipe declare about this size or twice as much
_BYTES_OF_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)


class _Sequential(soundfile.SoundFile):
    """A file that is read from its start to its end.

    soundfile seeks to the present position after each read, which disturbs decoders: MP3 in blocks would differ from
    MP3 in one read.
    """

    def seekable(self) -> bool:
        return False


def read_sound_file(source: Any, begin: float, rest: Rest = lambda _: iter(())) -> Decoded:
    """Open a file.

    Args:
        source: Path, or seekable binary file.
        begin: Seconds at its start to leave out.
        rest: Returns the blocks from a sample on, by another decoder. libsndfile ends at a damaged place.

    Returns:
        Its samples.

    Raises:
        soundfile.LibsndfileError: libsndfile cannot read it.
        TypeError: It is raw samples by its name.
    """
    sound = _Sequential(source)
    if sound.format == "RAW":  # libsndfile takes any file without a header for samples if its name ends in .au or .vox
        sound.close()
        raise soundfile.LibsndfileError(UNRECOGNISED)
    decoded = Decoded(sound.samplerate, iter(()))
    start = round(begin * sound.samplerate)
    if 0 < start < sound.frames and sound.format in SEEKABLE and not sound.subtype.startswith("MPEG"):
        sound.seek(start)
        decoded.blocks = _blocks(sound, start, rest, decoded.notes)
    else:
        decoded.blocks = without_start(_blocks(sound, 0, rest, decoded.notes), start)
    return decoded


def _blocks(sound: _Sequential, position: int, rest: Rest, notes: list[str]) -> Iterator[np.ndarray]:
    """Yield blocks of about a second, and describe afterwards what was missing."""
    declared, rate, held, damaged = _declared(sound), sound.samplerate, list[np.ndarray](), 0
    with sound:
        try:
            while len(block := sound.read(READ, dtype="float32", always_2d=True)):
                held.append(block)
                position += len(block)
                if len(held) * READ >= rate:
                    yield np.concatenate(held)
                    held = []
        except soundfile.LibsndfileError:
            damaged = 1
    yield from held
    for block in rest(position) if damaged else ():
        position += len(block)
        yield block
    notes += damage_note(damaged) + short_note(position / rate, declared)


def _declared(sound: _Sequential) -> float | None:
    """Return the seconds that the header declares, or None if it declares none."""
    if found := _BYTES_OF_WAV.search(sound.extra_info):
        declared, present = map(int, found.groups())
        if declared < STREAMED and present > 0:
            return sound.frames / sound.samplerate * declared / present
    return sound.frames / sound.samplerate if sound.frames < 2**62 else None
