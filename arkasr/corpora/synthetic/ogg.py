"""Ogg page headers (RFC 3533), to set the serial number of a stream.

libsndfile takes the serial number from the clock, so the files of a seeded corpus would differ from call to call.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER, _SERIAL, _CHECKSUM, _NUM_SEGMENTS = 27, 14, 22, 26
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(page: bytes) -> int:
    """Compute the checksum of an Ogg page (RFC 3533).

    Args:
        page: A whole page, with zeros in place of its checksum.

    Returns:
        CRC-32 with zlib's polynomial, highest bit first, without inversion.
    """
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _pages(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the first byte of every page and the byte after its last one."""
    begin = 0
    while begin < len(data):
        if data[begin : begin + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {begin}; the file must be Ogg")
        num_segments = data[begin + _NUM_SEGMENTS]
        lengths = data[begin + _HEADER : begin + _HEADER + num_segments]
        end = begin + _HEADER + num_segments + sum(lengths)
        yield begin, end
        begin = end


def set_serial(path: Path, serial: int) -> None:
    """Set the serial number of an Ogg file with one stream, and its checksums.

    Args:
        path: The file, changed in place.
        serial: The number, 32 bits without sign.

    Raises:
        ValueError: If the file is not Ogg.
    """
    data = bytearray(path.read_bytes())
    for begin, end in _pages(bytes(data)):
        struct.pack_into("<I", data, begin + _SERIAL, serial)
        struct.pack_into("<I", data, begin + _CHECKSUM, 0)
        struct.pack_into("<I", data, begin + _CHECKSUM, checksum(bytes(data[begin:end])))
    path.write_bytes(data)
