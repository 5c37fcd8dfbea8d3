"""Audio that libsndfile cannot read, such as M4A, AAC, WebM and the sound of videos, through PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np

from arkasr.transcription.decoded import MOST_DAMAGE, Decoded, damage_note, short_note, without_start

# Containers that hold their own audio. Playlists, and scripts that name other files or addresses, are never followed.
CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mka,mov,mp3,mp4,mpeg,mpegts,mpc,"
    "nut,ogg,opus,rm,spdif,tak,tta,voc,w64,wav,webm,wv,xwma,3gp,3g2,m4a,mj2"
)


class UnreadableError(ValueError):
    """FFmpeg cannot read a file."""


def read_av_file(file: BinaryIO, begin: float) -> Decoded | None:
    """Open a file.

    Args:
        file: Seekable binary file.
        begin: Seconds at its start to leave out.

    Returns:
        Its samples, or None if it has no audio.

    Raises:
        ImportError: PyAV is not installed.
        UnreadableError: FFmpeg cannot read it.
    """
    import av

    file.seek(0)
    try:
        container = av.open(file, metadata_errors="replace", options={"format_whitelist": CONTAINERS})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableError(getattr(error, "strerror", None) or str(error)) from error
    decoded = Decoded(0, iter(()))
    if not container.streams.audio:
        container.close()
        return None
    frames = _frames(container, decoded.notes)
    first = next(frames, None)
    if first is not None:
        decoded.rate = first.sample_rate
        blocks = _blocks(container, first, frames, decoded.notes)
        decoded.blocks = without_start(blocks, round(begin * decoded.rate))
    return decoded


def _frames(container: Any, notes: list[str]) -> Iterator[Any]:
    """Decode the first audio stream. Packets that cannot be decoded are left out and counted."""
    from av.error import FFmpegError

    damaged, packets = 0, container.demux(container.streams.audio[0])
    while damaged < MOST_DAMAGE:
        try:
            if (packet := next(packets, None)) is None:
                break
            yield from packet.decode()
        except FFmpegError:
            damaged += 1
    notes += damage_note(damaged)


def _blocks(container: Any, first: Any, frames: Iterator[Any], notes: list[str]) -> Iterator[np.ndarray]:
    from av import AudioResampler

    converter = AudioResampler(format="fltp", layout=first.layout, rate=first.sample_rate)
    declared, count = _declared(container), 0
    with container:
        for frame in chain([first], frames, [None]):  # None: the converter returns the samples that it holds
            for part in converter.resample(frame):
                block = part.to_ndarray().T
                count += len(block)
                yield np.ascontiguousarray(block)
    notes += short_note(count / first.sample_rate, declared)


def _declared(container: Any) -> float | None:
    """Return the seconds of the stream, or of the file if it holds nothing else."""
    stream = container.streams.audio[0]
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and len(container.streams) == 1 else None
