"""Audio of Lhotse Shar folders: read from the tar files at random access, when the clip is loaded.

A Shar folder holds numbered shards such as `cuts.000000.jsonl.gz` and `recording.000000.tar`. Line i of the first
belongs to entry i of the second. Lhotse reads both in order. Here the cuts are sampled first, and the audio is read
afterwards, so that neither the buffer of clips nor exact resuming holds or reads audio. Each process reads the headers
of a tar file once, when it first needs one of its clips.
"""

from __future__ import annotations

import re
import tarfile
from array import array
from functools import cache
from pathlib import Path
from typing import Any

from lhotse import Recording
from lhotse.cut import Cut
from lhotse.serialization import decode_json_line, deserialize_item
from lhotse.shar.readers.tar import parse_tarinfo
from lhotse.shar.utils import fill_shar_placeholder
from lhotse.utils import fastcopy

from arkasr.data.reasons import custom_value
from arkasr.errors import UserError

PLACE = (
    "arkasr_shar"  # custom field of a cut whose audio is in a tar file: path, number of the entry, name of the entry
)
# Custom field of a cut: position of the entry in the tar file, in bytes. Without it, the headers of the file are read.
OFFSET = "arkasr_offset"
CUTS_FILE = re.compile(r"cuts(\..*)?\.jsonl(\.gz)?")


def is_shar(folder: Path) -> bool:
    """Return whether a folder is in the format Lhotse Shar.

    Args:
        folder: An existing folder.

    Returns:
        True if it holds files with cuts and tar files with audio.
    """
    names = [file.name for file in folder.iterdir()]
    has_cuts = any(CUTS_FILE.fullmatch(name) for name in names)
    return has_cuts and any(map(_is_tar, names))


def audio_of(file: Path) -> Path:
    """Return the path of the tar file that belongs to a file of cuts.

    Args:
        file: For example `cuts.000000.jsonl.gz`.

    Returns:
        For example `recording.000000.tar` in the same folder, whether it exists or not.
    """
    found = CUTS_FILE.fullmatch(file.name)
    return file.with_name(f"recording{(found and found[1]) or ''}.tar")


def require_audio(files: list[Path]) -> None:
    """Check that each shard of Shar folders has its tar file, and that each tar file there has its cuts.

    Args:
        files: The files of a manifest. Files that do not belong to a Shar folder are ignored.

    Raises:
        UserError: A file is missing.
    """
    for folder in {file.parent for file in files}:
        if not is_shar(folder):
            continue
        present = {file.name for file in folder.iterdir()}
        for file in files:
            tar = audio_of(file)
            if file.parent == folder and CUTS_FILE.fullmatch(file.name) and tar.name not in present:
                raise UserError(f"{file}: its audio {tar.name} is not in this folder; copy it there, or write it again")
        _require_cuts(folder, present)


def _require_cuts(folder: Path, present: set[str]) -> None:
    known = {audio_of(folder / name).name for name in present if CUTS_FILE.fullmatch(name)}
    if without := sorted(name for name in present if _is_tar(name) and name not in known):
        raise UserError(
            f"{folder / without[0]}: its file of cuts, cuts{without[0][len('recording') : -len('.tar')]}.jsonl.gz, is "
            "not in this folder; copy it there, or write the folder again"
        )


def _is_tar(name: str) -> bool:
    return name.startswith("recording.") and name.endswith(".tar")


def locate(item: dict[str, Any], file: Path, number: int) -> None:
    """Note in a cut from which entry of which tar file its audio comes. Other cuts stay as they are.

    Args:
        item: The cut as a dictionary, changed in place.
        file: The file of cuts.
        number: Number of its line, from 0.
    """
    recording, custom = item.get("recording"), item.get("custom") or {}
    sources = recording.get("sources") if isinstance(recording, dict) else None
    source = sources[0] if isinstance(sources, list) and sources else None
    if not (isinstance(source, dict) and source.get("type") == "shar" and isinstance(custom, dict)):
        return
    if PLACE not in custom:  # labelled cuts keep their place
        tar = str(audio_of(file).absolute())
        item["custom"] = custom | {PLACE: [tar, number, item["id"]]}
        source["source"] = f"{tar}, entry {number + 1}"  # for messages


def tar_file(cut: Cut) -> Path | None:
    """Look up the tar file that holds the audio of a cut.

    Args:
        cut: Any cut.

    Returns:
        Its path, None for cuts that `locate` left alone.
    """
    place = custom_value(cut, PLACE)
    return Path(place[0]) if place and isinstance(place[0], str) else None


def with_audio(cut: Cut) -> Cut:
    """Replace a placeholder by the recording from its tar file.

    Args:
        cut: Any cut.

    Returns:
        A cut whose audio can be loaded. It is `cut` itself if that is not a placeholder.

    Raises:
        ValueError: The tar file does not have the entry.
        OSError: The tar file cannot be read.
    """
    if not (tar := tar_file(cut)):
        return cut
    _, number, name = custom_value(cut, PLACE)
    offset = (getattr(cut, "custom", None) or {}).get(OFFSET)
    return fastcopy(cut, recording=_recording(tar, number, name, offset if type(offset) is int else None))


def _recording(tar: Path, number: int, name: str, offset: int | None) -> Recording:
    if offset is None:
        offset = _offset(tar, number)
    with tar.open("rb") as file:
        file.seek(offset)
        with tarfile.open(fileobj=file, mode="r:") as members:
            first, second = members.next(), members.next()
            if first is None or second is None:
                raise ValueError(f"{tar} ends at entry {number + 1}; copy or write the file again")
            (data, path), (facts, _) = parse_tarinfo(first, members), parse_tarinfo(second, members)
    if str(path.parent / path.stem) != name:
        raise ValueError(f"entry {number + 1} of {tar} belongs to {path.stem}; write the shard again")
    if data is None or facts is None:
        raise ValueError(f"entry {number + 1} of {tar} holds no audio; write the shard again")
    recording = deserialize_item(decode_json_line(facts.decode()))
    fill_shar_placeholder(recording, data=data, tarpath=path)
    return recording


def _offset(tar: Path, number: int) -> int:
    offsets = _offsets(tar)
    if number >= len(offsets):
        raise ValueError(
            f"{tar} holds {len(offsets)} entries, this is entry {number + 1}; copy or write the file again"
        )
    return offsets[number]


@cache
def _offsets(tar: Path) -> array[int]:
    """Return the positions of all pairs of audio and description, in bytes. Reads headers only."""
    found = array("Q")
    with tarfile.open(tar, "r:") as members:
        try:
            for number, member in enumerate(members):
                if number % 2 == 0:
                    found.append(member.offset)
        except tarfile.ReadError:  # the file is cut short. Its complete entries can be read
            pass
    return found
