"""Transcripts in JSON lines: hypothesis files of arkasr, NeMo's and other manifests, and cut manifests of Lhotse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from arkasr.errors import UserError
from arkasr.scoring.transcripts import Transcripts, by_id, read_lines
from arkasr.scoring.utterances import Utterance

# The first of these keys that a row has is read.
IDS = ("id", "utt_id", "utterance_id", "utt", "key", "audio_filepath", "audio", "file_name", "path", "name")
TEXTS = ("text", "transcript", "transcription", "sentence")
REFERENCES = ("reference", "ref", *TEXTS)
HYPOTHESES = ("hypothesis", "hyp", "pred_text", "prediction", "predicted_text", *TEXTS)
SECONDS, SPEAKERS, CONDITIONS = ("seconds", "duration"), ("speaker", "speaker_id"), ("condition",)


def read_jsonl(path: str, is_reference: bool) -> Transcripts:
    """Read one JSON object per line.

    Args:
        path: The file.
        is_reference: Read references, otherwise hypotheses. A file may hold both.

    Returns:
        Its transcripts. If no row has an id, they are numbered.

    Raises:
        UserError: The file cannot be read, a line is not a JSON object, or lacks a text or an id.
    """
    keys = REFERENCES if is_reference else HYPOTHESES
    objects = [(number, _object(path, number, line)) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    numbered = not any(_first(row, IDS) for _, row in objects)
    rows, stopped = [], dict[str, bool]()
    for number, row in objects:
        where = f"{path}, line {number}"
        identity = str(number) if numbered else _text(where, row, IDS, "the id")
        rows.append((number, identity, _utterance(where, row, keys)))
        if isinstance(row.get("stopped"), bool):
            stopped[identity] = row["stopped"]
    return Transcripts(path, by_id(path, rows), numbered, stopped=stopped if len(stopped) == len(rows) else {})


def _object(path: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # fails for half characters, which nothing can print
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error}); correct the line") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: must be a JSON object, got {str(row)[:60]!r}; correct the line")
    return row


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in row), None)


def _text(where: str, row: Mapping[str, Any], keys: Sequence[str], what: str) -> str:
    key = _first(row, keys)
    if key is None:
        raise UserError(f"{where}: has no key for {what}; use one of: {', '.join(keys)}")
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool) and keys is IDS:
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: key {key!r} must be text, got {str(value)[:60]!r}; write an empty text for silence")
    return value


def _utterance(where: str, row: Mapping[str, Any], keys: Sequence[str]) -> Utterance:
    parts = row.get("supervisions")
    if isinstance(parts, list) and all(isinstance(part, dict) for part in parts):  # a cut of Lhotse
        text = " ".join(str(part.get("text") or "") for part in parts)
        speakers = dict.fromkeys(str(part["speaker"]) for part in parts if part.get("speaker"))
        condition = (row.get("custom") or {}).get("condition")
        return Utterance(text, _seconds(where, row), "+".join(speakers), "" if condition is None else str(condition))
    facts = [_first(row, names) for names in (SPEAKERS, CONDITIONS)]
    speaker, condition = ("" if key is None or row[key] is None else str(row[key]) for key in facts)
    return Utterance(_text(where, row, keys, "the text"), _seconds(where, row), speaker, condition)


def _seconds(where: str, row: Mapping[str, Any]) -> float | None:
    key = _first(row, SECONDS)
    value = None if key is None else row[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UserError(f"{where}: key {key!r} must be seconds of at least 0, got {str(value)[:60]!r}; correct it")
    return float(value)
