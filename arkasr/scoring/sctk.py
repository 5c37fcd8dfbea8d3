"""The formats of NIST's SCTK: trn, stm and ctm. Lines that begin with `;;` are comments.

| format | line |
|---|---|
| trn | `the words (utterance-id)` |
| stm | `recording channel speaker begin end <labels> the words`, times in seconds, labels optional |
| ctm | `recording channel begin duration word confidence`, times in seconds, confidence optional |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from arkasr.errors import UserError
from arkasr.scoring.transcripts import Segment, Transcripts, Word, by_id, read_lines
from arkasr.scoring.utterances import Utterance

TRN = re.compile(r"(?P<text>.*?)\s*\((?P<id>[^()\s]+)\)\s*")
STM = re.compile(r"(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)(?:\s+<([^<>]*)>)?(?:\s+(.*?))?\s*")
IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"
ALTERNATIVES = re.compile(r"(?:^|\s)\{.*/.*\}|<ALT(?:_BEGIN|_END)?>")


def _lines(path: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_lines(path), 1):
        if line.strip() and not line.startswith(";;"):
            if ALTERNATIVES.search(line):
                raise UserError(
                    f"{path}, line {number}: holds alternative transcripts ({line.strip()[:60]!r}), which are not "
                    "supported; keep one of them"
                )
            yield number, line


def _seconds(path: str, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{path}, line {number}: time {text!r} must be a number of seconds of at least 0; correct it")
    return value


def read_trn(path: str) -> Transcripts:
    """Read a trn file.

    Args:
        path: The file.

    Returns:
        Its transcripts.

    Raises:
        UserError: The file cannot be read, a line has no id, or an id comes twice.
    """
    rows = []
    for number, line in _lines(path):
        found = TRN.fullmatch(line)
        if found is None:
            raise UserError(
                f"{path}, line {number}: must end in an utterance id in parentheses, got {line.strip()[-60:]!r}; "
                "correct the line, or name another format with --format"
            )
        rows.append((number, found["id"], Utterance(found["text"])))
    return Transcripts(path, by_id(path, rows))


def read_stm(path: str) -> Transcripts:
    """Read an stm file. The labels are the condition of a segment.

    Args:
        path: The file.

    Returns:
        Its segments. Those with the text `IGNORE_TIME_SEGMENT_IN_SCORING` are no utterances.

    Raises:
        UserError: The file cannot be read, a line has no recording, channel, speaker and times, or a segment comes
            twice.
    """
    rows, segments = [], []
    for number, line in _lines(path):
        found = STM.fullmatch(line)
        if found is None:
            raise UserError(
                f"{path}, line {number}: must be 'recording channel speaker begin end <labels> words', got "
                f"{line.strip()[:60]!r}; correct the line, or name another format with --format"
            )
        name, channel, speaker, begin, end, labels, text = found.groups(default="")
        seconds = _seconds(path, number, end) - _seconds(path, number, begin)
        if seconds <= 0:
            raise UserError(f"{path}, line {number}: ends at {end} s, not after its begin {begin} s; correct the times")
        identity = "" if text.upper() == IGNORED else f"{name}-{channel}-{begin}-{end}"
        segments.append(Segment((name, channel), float(end), identity))
        if identity:
            rows.append((number, identity, Utterance(text, seconds, speaker, labels)))
    return Transcripts(path, by_id(path, rows), segments=tuple(sorted(segments, key=lambda each: each.end)))


def read_ctm(path: str) -> Transcripts:
    """Read a ctm file. Without segments, all words of a recording are one utterance, in the order of their times.

    Args:
        path: The file.

    Returns:
        Its words, and an utterance per recording. If a recording has several channels, per channel.

    Raises:
        UserError: The file cannot be read, or a line has no recording, channel, times and word.
    """
    words = []
    for number, line in _lines(path):
        cells = line.split()
        if len(cells) not in (5, 6):
            raise UserError(
                f"{path}, line {number}: must be 'recording channel begin duration word confidence', got "
                f"{line.strip()[:60]!r}; correct the line, or name another format with --format"
            )
        begin, duration = (_seconds(path, number, cell) for cell in cells[2:4])
        words.append(Word((cells[0], cells[1]), begin + duration / 2, cells[4]))
    words.sort(key=lambda word: word.middle)  # stable
    texts: dict[tuple[str, str], list[str]] = {}
    for word in words:
        texts.setdefault(word.recording, []).append(word.text)
    channels = Counter(name for name, _ in texts)
    rows = [
        (0, name if channels[name] == 1 else f"{name}-{channel}", Utterance(" ".join(found)))
        for (name, channel), found in texts.items()
    ]
    return Transcripts(path, by_id(path, rows), words=tuple(words))
