"""The clips of manifests: Lhotse cuts, and JSONL with one row per clip, as in the published repository."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from arkasr.corpora.layouts.columns import ColumnMap, Names
from arkasr.corpora.layouts.table_rows import Row, read_rows
from arkasr.corpora.layouts.table_times import Times, times
from arkasr.corpora.layouts.table_values import OTHER_TASK, audio_fault
from arkasr.errors import UserError
from arkasr.interfaces import SAMPLE_RATE
from arkasr.languages import known_language
from arkasr.transcription.audio import AudioStream, as_stream, open_audio
from arkasr.transcription.source import Source, failing, file_stamp

PART_S, MARGIN_S = 60.0, 1.0  # of long cuts, which are read in parts. Whole seconds are whole samples at any rate
TASKS = ("asr", "transcribe")
_UNSAFE = re.compile(r"[^\w.,=+@ -]+")


def manifest_sources(path: Path, language: str) -> Iterator[Source]:
    """List the clips of a manifest.

    Args:
        path: A file of cuts or of rows, as .jsonl or .jsonl.gz.
        language: English name of the language of clips that name none.

    Yields:
        The clips. One that cannot be read raises when it is opened.
    """
    try:
        first = next((row for _, row in islice(read_rows(path), 1)), {})
        is_cuts = isinstance(first, dict) and ("supervisions" in first or "recording" in first or "tracks" in first)
        yield from _cuts(path, language) if is_cuts else _rows(path)
    except UserError as error:
        yield failing(str(path), error)


def _cuts(path: Path, language: str) -> Iterator[Source]:
    """Read cuts as `arkasr decode` does: one clip per supervision."""
    from arkasr.data.checks import Rules
    from arkasr.data.manifests import read_cuts
    from arkasr.data.reasons import refusal

    rules = Rules(language=language, language_from="--language", needs_text=False, any_language=True)
    for cut in read_cuts(str(path), rules):
        name = str(cut.id)
        if refused := refusal(cut):
            yield failing(name, UserError(str(refused)))
            continue
        named = cut.supervisions[0].language if cut.supervisions else None
        yield Source(name, partial(cut_audio, cut), _safe(name), named or "", stamp=_cut_stamp(cut))


def cut_audio(cut: Any) -> AudioStream:
    """Open the audio of a cut.

    Args:
        cut: A cut of Lhotse, see `arkasr.data.checks`.

    Returns:
        Its audio, mixed to one channel.
    """
    return as_stream(str(cut.id), _cut_blocks(cut))


def _cut_blocks(cut: Any) -> Iterator[Tensor]:
    start = 0.0
    while start < cut.duration:
        end = min(start + PART_S, cut.duration)
        before, after = min(MARGIN_S, start), min(MARGIN_S, cut.duration - end)
        whole = before == after == 0 and start == 0
        part = cut if whole else cut.truncate(offset=start - before, duration=before + end - start + after)
        samples = _waveform(part)
        yield samples[round(before * SAMPLE_RATE) : len(samples) - round(after * SAMPLE_RATE)]
        start = end


def _waveform(cut: Any) -> Tensor:
    from arkasr.data.audio import read_waveform
    from arkasr.data.reasons import SILENT, Unusable

    try:
        return read_waveform(cut)
    except Unusable as unusable:
        if unusable.kind == SILENT:
            return Tensor(round(cut.duration * SAMPLE_RATE)).zero_()
        raise UserError(f"{cut.id}: {unusable.kind}: {unusable.detail}") from unusable


def _cut_stamp(cut: Any) -> str:
    facts = cut.to_dict()
    recording = facts.get("recording") or {}
    files = [file_stamp(str(each.get("source"))) for each in recording.get("sources", ()) if each.get("type") == "file"]
    text = json.dumps([facts, files], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _rows(path: Path) -> Iterator[Source]:
    columns = ColumnMap({})
    for number, row in read_rows(path):
        yield _row(path, (number, row), columns)


def _row(path: Path, numbered: Row, columns: ColumnMap) -> Source:
    number, row = numbered
    where = f"{path}, line {number}"
    if isinstance(row, str):
        return failing(where, UserError(f"{where}: {row}; correct this line"))
    names = columns.of(row)
    audio, found = row.get(names.audio or ""), _times(row, names)
    fault = audio_fault(audio) or found.fault or _task_fault(row)
    if fault:
        unread = failing(where, UserError(f"{where}: {fault}; correct this line"))
        return Source(unread.name, unread.open, unread.place, row=row)
    file = _beside(path, str(audio))
    is_part = bool(found.start or found.end is not None)
    times_text = f":{found.start:g}-{'' if found.end is None else f'{found.end:g}'}" if is_part else ""
    name = str(row[names.id]) if names.id else f"{audio}{times_text}"
    place = _safe(name if names.id else f"{Path(str(audio)).stem}{times_text.replace(':', '-')}")
    opened = partial(open_audio, file, str(audio), found.start, found.end)
    language = known_language(str(row.get(names.language or "") or ""))
    return Source(name, opened, place, language.name if language else "", row, file_stamp(file, found))


def _times(row: Mapping[str, Any], names: Names) -> Times:
    return times(*(row.get(name) if name else None for name in (names.start, names.end, names.duration)))


def _task_fault(row: Mapping[str, Any]) -> str:
    task = row.get("task")
    return "" if task is None or str(task).lower() in ("", *TASKS) else f"{OTHER_TASK}, but {task!r}"


def _beside(path: Path, audio: str) -> Path:
    """Return the file that a row names: relative paths begin at the folder of the manifest, else at the working one."""
    beside = path.parent / audio
    return beside if beside.exists() or not Path(audio).exists() else Path(audio)


def _safe(name: str) -> str:
    """Make the name of an output file of an id."""
    return _UNSAFE.sub("_", name).strip(". ")[:150] or "unnamed"
