"""One shard of a Shar folder: the cuts of some lines of a manifest, and their audio in a tar file.

The audio of a clip is copied if it is a whole file of one channel in a compressed format. All other audio (segments,
several channels, WAV) becomes 16-bit FLAC at 16 kHz, which holds what training reads.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lhotse import AudioSource, MonoCut, Recording
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from lhotse.utils import fastcopy

from arkasr.data.audio import read_waveform
from arkasr.data.blocks import Block
from arkasr.data.lines import entries
from arkasr.data.reasons import UNREADABLE, Unusable, source_of
from arkasr.data.shar import with_audio
from arkasr.interfaces import SAMPLE_RATE
from arkasr.utils.files import publish, write_text

_COMPRESSED = {"FLAC": "flac", "OGG": "ogg", "MP3": "mp3", "MPEG": "mp3"}  # libsndfile's names, and suffixes


@dataclass(frozen=True)
class Job:
    """What to write.

    Attributes:
        manifest: The manifest.
        block: Its lines.
        folder: The Shar folder.
        number: Number of the shard, from 0.
    """

    manifest: Path
    block: Block
    folder: Path
    number: int

    def path(self, kind: str, suffix: str) -> Path:
        """Return the path of one of the shard's files.

        Args:
            kind: `cuts` or `recording`, with a dot in front while it is written.
            suffix: The suffix with its dot.

        Returns:
            The path.
        """
        return self.folder / f"{kind}.{self.number:06d}{suffix}"

    @property
    def done(self) -> Path:
        """The file that marks the shard as finished. It is beside the folder, where Lhotse does not look."""
        return self.folder.parent / f".{self.folder.name}" / f"{self.number:06d}.json"


@dataclass
class Shard:
    """A finished shard, as in its file `Job.done`.

    Attributes:
        source: Digest of the lines that it was written from.
        tar_bytes: Size of the tar file in bytes.
        offsets: Position of every clip in the tar file, in bytes.
        failed: The clips whose audio cannot be read, each with `id`, `reason`, `path` of the audio, `seconds` and
            `has_text`.
        clipped: Number of clips with samples beyond full scale, which were clipped.
    """

    source: str
    tar_bytes: int = 0
    offsets: list[int] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    clipped: int = 0


def write_shard(job: Job) -> Shard:
    """Write a shard, unless it is there already, written from the same lines.

    Args:
        job: What to write.

    Returns:
        What was written.
    """
    items = [item for _, item in entries(job.manifest, 0, job.block)]
    source = hashlib.sha256(json.dumps(items, ensure_ascii=False).encode("utf-8", "backslashreplace")).hexdigest()
    if (done := _finished(job, source)) is not None:
        return done
    job.done.unlink(missing_ok=True)
    shard, cuts = Shard(source), []
    tar_part = job.path(".recording", ".tar.part")
    with tar_part.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for item in items:
            cut = deserialize_item(item)
            try:
                data, suffix, stored = _audio(cut, shard)
            except Unusable as reason:
                shard.failed.append(_failure(cut, reason.kind))
                continue
            shard.offsets.append(tar.offset)
            _add(tar, f"{cut.id}.{suffix}", data)
            _add(tar, f"{cut.id}.json", json.dumps(stored.recording.to_dict()).encode())
            cuts.append(stored)
    text = "".join(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n" for cut in cuts)
    cuts_part = job.path(".cuts", ".jsonl.gz.part")
    cuts_part.write_bytes(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0))
    shard.tar_bytes = tar_part.stat().st_size
    publish(tar_part, job.path("recording", ".tar"))
    publish(cuts_part, job.path("cuts", ".jsonl.gz"))
    write_text(job.done, json.dumps(asdict(shard)))
    return shard


def _failure(cut: Cut, reason: str) -> dict[str, Any]:
    has_text = cut.supervisions[0].text is not None
    return {"id": cut.id, "reason": reason, "path": source_of(cut), "seconds": cut.duration, "has_text": has_text}


def _finished(job: Job, source: str) -> Shard | None:
    try:
        shard = Shard(**json.loads(job.done.read_text(encoding="utf-8")))
        complete = job.path("recording", ".tar").stat().st_size == shard.tar_bytes
    except (OSError, ValueError, TypeError):
        return None
    return shard if complete and shard.source == source and job.path("cuts", ".jsonl.gz").is_file() else None


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _audio(cut: Cut, shard: Shard) -> tuple[bytes, str, MonoCut]:
    """Return the audio, the suffix of its format, and the cut with a placeholder. Raises Unusable."""
    if (copied := _copied(cut)) is not None:
        return copied
    import soundfile

    samples = read_waveform(cut).numpy()
    shard.clipped += bool((abs(samples) > 1).any())
    encoded = io.BytesIO()
    soundfile.write(encoded, samples.clip(-1, 1), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    source = AudioSource("shar", [0], "")
    recording = Recording(cut.id, [source], SAMPLE_RATE, len(samples), len(samples) / SAMPLE_RATE)
    seconds = cut.duration if round(cut.duration * SAMPLE_RATE) == len(samples) else recording.duration
    own = fastcopy(cut.supervisions[0], start=0.0, duration=seconds, channel=0, recording_id=cut.id)
    custom = getattr(cut, "custom", None)
    return encoded.getvalue(), "flac", MonoCut(cut.id, 0.0, seconds, 0, [own], recording=recording, custom=custom)


def _copied(cut: Cut) -> tuple[bytes, str, MonoCut] | None:
    """Return the bytes of the file, its format and the cut. None if the audio must be decoded."""
    import soundfile

    if not isinstance(cut, MonoCut) or cut.start != 0 or abs(cut.duration - cut.recording.duration) > 1e-6:
        return None
    sources = cut.recording.sources
    if len(sources) != 1 or sources[0].channels != [0] or sources[0].type not in ("file", "shar"):
        return None
    try:
        source = with_audio(cut).recording.sources[0]
        data = source.source if source.type == "memory" else Path(source.source).read_bytes()
        info = soundfile.info(io.BytesIO(data))
    except (OSError, ValueError, soundfile.SoundFileError) as error:
        raise Unusable(UNREADABLE, str(error)) from error
    suffix = _COMPRESSED.get(info.format)
    if suffix is None or info.channels != 1:
        return None
    recording = fastcopy(cut.recording, id=cut.id, sources=[AudioSource("shar", [0], "")])
    own = fastcopy(cut.supervisions[0], recording_id=cut.id)
    return data, suffix, fastcopy(cut, recording=recording, supervisions=[own])


def placed(item: dict[str, Any], tar: Path, number: int, offset: int) -> dict[str, Any]:
    """Name the place of the audio in a cut, so that it can be read from any manifest.

    Args:
        item: A cut of the shard as a dictionary, changed in place.
        tar: The tar file.
        number: Number of the clip in it, from 0.
        offset: Position of the clip in the tar file, in bytes.

    Returns:
        The same dictionary.
    """
    from arkasr.data.shar import OFFSET, PLACE

    item["custom"] = (item.get("custom") or {}) | {PLACE: [str(tar), number, item["id"]], OFFSET: offset}
    item["recording"]["sources"][0]["source"] = f"{tar}, entry {number + 1}"  # for messages
    return item
