"""Ten made-up clips of one's own, written in every input format of a table: JSONL, CSV, NeMo, Qwen3-ASR, and others.

Every writer fills a folder with ten audio files and the manifests beside them. All formats describe the same clips, so
that the prepared sets must be equal.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

_WORDS = ("red dogs run", "blue cats sleep", "green birds sing", "old men walk", "small fish swim")
_RATE = 16000


@dataclass(frozen=True)
class Clip:
    """One clip.

    Attributes:
        name: Name of the audio file without suffix.
        part: `train` (six clips), `dev` or `test` (two clips each).
        text: Transcript. Empty if the clip is untranscribed.
        seconds: Length of the audio file in seconds.
        speaker: Name of the speaker.
    """

    name: str
    part: str
    text: str
    seconds: float
    speaker: str


def clips(untranscribed: int = 0) -> list[Clip]:
    """Return the ten clips.

    Args:
        untranscribed: How many of the six training clips have no transcript.

    Returns:
        The clips in the order of their names.
    """
    parts = ["train"] * 6 + ["dev"] * 2 + ["test"] * 2
    texts = ["" if number < untranscribed else f"{_WORDS[number % 5]} number {number}" for number in range(10)]
    return [
        Clip(f"clip_{number:02d}", part, text, 0.5 + 0.125 * number, f"s{number % 2}")
        for number, (part, text) in enumerate(zip(parts, texts, strict=True))
    ]


def write_audio(folder: Path, clips: Iterable[Clip]) -> None:
    """Write one audio file per clip, a tone of its own length and pitch.

    Args:
        folder: Where to write `<name>.wav`. Made if it is missing.
        clips: The clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(clips):
        times = np.arange(round(clip.seconds * _RATE)) / _RATE
        soundfile.write(folder / f"{clip.name}.wav", 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * times), _RATE)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write one JSON object per line.

    Args:
        path: The file.
        rows: The objects.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table with a header. The separator is a tab if the suffix is .tsv.

    Args:
        path: The file.
        rows: The rows. The first one names the columns.

    Returns:
        `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def jsonl(root: Path, untranscribed: int = 0) -> Path:
    """Write train.jsonl, dev.jsonl and test.jsonl with `audio` and `text`, without any other column."""
    return _per_part(root, untranscribed, "{}.jsonl", lambda clip: {"audio": _path(clip), "text": clip.text})


def published(root: Path, untranscribed: int = 0) -> Path:
    """Write the JSONL of the published repository. -1 stands for the whole file."""
    extra = {"task": "asr", "begin_time": -1, "end_time": -1}
    return _per_part(root, untranscribed, "{}.jsonl", lambda clip: {"audio": _path(clip), "text": clip.text, **extra})


def nemo(root: Path, untranscribed: int = 0) -> Path:
    """Write NeMo's manifests, which are lines of JSON in files with the suffix .json."""

    def row(clip: Clip) -> dict[str, Any]:
        return {"audio_filepath": _path(clip), "duration": clip.seconds, "text": clip.text, "offset": 0.0}

    return _per_part(root, untranscribed, "{}.json", row)


def qwen3(root: Path, untranscribed: int = 0) -> Path:
    """Write Qwen3-ASR's fine-tuning JSONL. The language is a prefix of the text, and None in one clip."""

    def row(clip: Clip) -> dict[str, Any]:
        language = "None" if clip.name == "clip_05" else "English"
        return {"audio": _path(clip), "text": f"language {language}<asr_text>{clip.text}"}

    return _per_part(root, untranscribed, "{}.jsonl", row)


def table(root: Path, untranscribed: int = 0, name: str = "all.csv") -> Path:
    """Write one table for all parts, with a column `split`."""
    all_clips = clips(untranscribed)
    write_audio(root / "wavs", all_clips)
    write_csv(root / name, [{"path": _path(clip), "sentence": clip.text, "split": clip.part} for clip in all_clips])
    return root


def tsv(root: Path, untranscribed: int = 0) -> Path:
    """Write one table with tabs between its columns."""
    return table(root, untranscribed, "all.tsv")


def audiofolder(root: Path, untranscribed: int = 0) -> Path:
    """Write the folders train, validation and test, each with audio files and a metadata.csv."""
    all_clips = clips(untranscribed)
    for part, name in (("train", "train"), ("dev", "validation"), ("test", "test")):
        mine = [clip for clip in all_clips if clip.part == part]
        write_audio(root / name, mine)
        rows = [{"file_name": f"{clip.name}.wav", "transcription": clip.text} for clip in mine]
        write_csv(root / name / "metadata.csv", rows)
    return root


# Writer of a folder and value of the key `layout` of corpus.yaml, by the name of the format.
FORMATS: dict[str, tuple[Callable[..., Path], str]] = {
    "jsonl": (jsonl, "jsonl"),
    "published": (published, "jsonl"),
    "nemo": (nemo, "jsonl"),
    "qwen3": (qwen3, "jsonl"),
    "csv": (table, "csv"),
    "tsv": (tsv, "csv"),
    "audiofolder": (audiofolder, "csv"),
}


def _path(clip: Clip) -> str:
    return f"wavs/{clip.name}.wav"


def _per_part(root: Path, untranscribed: int, pattern: str, row: Callable[[Clip], dict[str, Any]]) -> Path:
    all_clips = clips(untranscribed)
    write_audio(root / "wavs", all_clips)
    for part in ("train", "dev", "test"):
        write_jsonl(root / pattern.format(part), [row(clip) for clip in all_clips if clip.part == part])
    return root
