"""Transcriptions as text: txt, json, jsonl, srt, vtt and tsv."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from arkasr.transcription.cues import Cue, cues
from arkasr.transcription.results import Failed, Segment, Transcription, Word

TSV_HEADER = "name\tstart\tend\ttext\n"


def record(result: Transcription | Failed) -> dict[str, Any]:
    """Return a result as an object for JSON.

    Args:
        result: A transcription, or a file that failed.

    Returns:
        The fields of `Transcription`, with the segments and words as objects and seconds to the millisecond. Segments
        without word times have no `words`. Of a file that failed, `name` and `error`.
    """
    if isinstance(result, Failed):
        return {"name": result.name, "error": result.reason}
    fields = asdict(result) | {"notes": list(result.notes)}
    fields["segments"] = list(fields["segments"])
    fields["seconds"] = round(result.seconds, 3)
    for segment in fields["segments"]:
        for timed in (segment, *segment["words"]):
            timed["start"], timed["end"] = round(timed["start"], 3), round(timed["end"], 3)
        if not segment["words"]:
            del segment["words"]
        else:
            segment["words"] = list(segment["words"])
    return fields


def from_record(fields: Mapping[str, Any]) -> Transcription:
    """Build a transcription from its object.

    Args:
        fields: Return value of `record`, also after JSON.

    Returns:
        The transcription.

    Raises:
        KeyError: A field is missing.
        TypeError: There is an unknown field.
    """
    segments = tuple(
        Segment(**{**segment, "words": tuple(Word(**word) for word in segment.get("words", ()))})
        for segment in fields["segments"]
    )
    return Transcription(**{**fields, "segments": segments, "notes": tuple(fields["notes"])})


def one_line(value: object) -> str:
    """Return a value as compact JSON on one line, with a line end.

    Args:
        value: Any value of JSON.

    Returns:
        The line.
    """
    return json.dumps(value, ensure_ascii=False) + "\n"


def txt(result: Transcription) -> str:
    """Return the text on one line.

    Args:
        result: The transcription.

    Returns:
        The text with a line end.
    """
    return " ".join(result.text.split()) + "\n"


def srt(result: Transcription) -> str:
    """Return subtitles in SubRip's format.

    Args:
        result: The transcription.

    Returns:
        The subtitles, see `cues`.
    """
    blocks = (
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_line(cue)}\n\n"
        for number, cue in enumerate(cues(result), 1)
    )
    return "".join(blocks)


def vtt(result: Transcription) -> str:
    """Return subtitles in the format WebVTT.

    Args:
        result: The transcription.

    Returns:
        The subtitles, see `cues`.
    """
    blocks = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escaped(_line(cue))}\n\n" for cue in cues(result)
    )
    return "WEBVTT\n\n" + "".join(blocks)


def tsv_rows(result: Transcription) -> str:
    """Return one row per segment: name, start and end in seconds, text.

    Args:
        result: The transcription.

    Returns:
        The rows, without header.
    """
    name = " ".join(result.name.split())
    rows = (f"{name}\t{s.start:.3f}\t{s.end:.3f}\t{' '.join(s.text.split())}\n" for s in result.segments)
    return "".join(rows)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(cue: Cue) -> str:
    return " ".join(cue.text.split()).replace("-->", "->")  # an arrow would be read as times


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * max(seconds, 0.0))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


# A whole document of one transcription, by the name of its format.
FORMATS: dict[str, Callable[[Transcription], str]] = {
    "txt": txt,
    "json": lambda result: json.dumps(record(result), ensure_ascii=False, indent=2) + "\n",
    "jsonl": lambda result: one_line(record(result)),
    "srt": srt,
    "vtt": vtt,
    "tsv": lambda result: TSV_HEADER + tsv_rows(result),
}
