"""Read transcripts in any of the known formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from arkasr.errors import UserError
from arkasr.scoring.json_transcripts import read_jsonl
from arkasr.scoring.sctk import read_ctm, read_stm, read_trn
from arkasr.scoring.transcripts import Transcripts, by_id, read_lines
from arkasr.scoring.utterances import Utterance

FORMATS = ("text", "kaldi", "jsonl", "trn", "stm", "ctm")
SUFFIXES = {".jsonl": "jsonl", ".json": "jsonl", ".trn": "trn", ".stm": "stm", ".ctm": "ctm"}
KALDI_NAME = "text"  # the file of transcripts in a Kaldi data directory
IDENTIFIER = re.compile(r"(?=\S*[-_])(?=\S*\d)\S+")


def read_transcripts(path: str, is_reference: bool, chosen: str = "") -> Transcripts:
    """Read a file of transcripts.

    Args:
        path: The file. Its suffix may be followed by `.gz`.
        is_reference: Read references, otherwise hypotheses. Only JSON lines differ.
        chosen: Format of files whose suffix is none of `SUFFIXES`. Empty: `kaldi` for a file named `text`, and `text`
            for `.txt`.

    Returns:
        Its transcripts.

    Raises:
        UserError: The format is unknown, or the file is broken.
    """
    name = Path(path).name.removesuffix(".gz")
    suffix = Path(name).suffix.lower()
    form = SUFFIXES.get(suffix) or chosen or {".txt": "text"}.get(suffix) or ("kaldi" if name == KALDI_NAME else "")
    readers: dict[str, Callable[[str], Transcripts]] = {
        "text": partial(_read_text, certain=bool(chosen)),
        "kaldi": read_kaldi,
        "jsonl": partial(read_jsonl, is_reference=is_reference),
        "trn": read_trn,
        "stm": read_stm,
        "ctm": read_ctm,
    }
    if form not in readers:
        known = ", ".join([*SUFFIXES, ".txt"])
        raise UserError(
            f"{path}: the format is unknown, because the suffix is none of {known}; name the format with --format "
            f"(one of: {', '.join(FORMATS)})"
        )
    return readers[form](path)


def _read_text(path: str, certain: bool) -> Transcripts:
    """Read one text per line. An empty line is an empty text."""
    lines = read_lines(path)
    if not certain and _has_ids(lines):
        raise UserError(
            f"{path}: each line begins with an id, such as {lines[0].split()[0]}, as in Kaldi; add --format kaldi, or "
            "--format text if these are words"
        )
    rows = ((number, str(number), Utterance(line)) for number, line in enumerate(lines, 1))
    return Transcripts(path, by_id(path, rows), numbered=True)


def _has_ids(lines: Sequence[str]) -> bool:
    words = [line.split()[0] if line.split() else "" for line in lines]
    return len(words) > 1 and len(set(words)) == len(words) and all(map(IDENTIFIER.fullmatch, words))


def read_kaldi(path: str) -> Transcripts:
    """Read an id and a text per line, as Kaldi's files `text` and `utt2spk` hold them. Empty lines are skipped.

    Args:
        path: The file.

    Returns:
        Its transcripts. A line with nothing but an id has an empty text.

    Raises:
        UserError: The file cannot be read, or an id comes twice.
    """
    cells = [(number, line.split(maxsplit=1)) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    rows = [(number, words[0], Utterance(words[1] if len(words) > 1 else "")) for number, words in cells]
    return Transcripts(path, by_id(path, rows))
