"""Texts of several models for a terminal: one below the other, token below token, with error rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, TextIO

from arkasr.scoring.alignment import Edit
from arkasr.transcription.comparison.columns import Kind, columns
from arkasr.transcription.comparison.page import MARKS, Page, columns_wide
from arkasr.utils.console import printable

REFERENCE = "reference"
UNITS = {"wer": "words", "cer": "characters", "mer": "characters and words"}
KINDS: dict[Kind, str] = {"substitute": "another", "insert": "added", "delete": "missing"}
EXAMPLES = 5


def side_by_side(found: Mapping[str, Any], file: TextIO) -> str:
    """Format a comparison.

    Args:
        found: Return value of `arkasr.transcription.comparison.compare.comparison`.
        file: Where it will be printed. A terminal gets its width and colours.

    Returns:
        The models, then each file, then error rates and differences, then notes on what is missing.
    """
    page = Page(file)
    labels = _labels(list(found["models"]), page.width // 4)
    parts = [
        _legend(found, labels, page),
        *(_file(entry, labels, found["metric"], page) for entry in found["files"]),
        _rates(found, labels, page),
        [page.wrapped(_difference(each, labels, found)) for each in found["comparisons"]],
        [page.wrapped(printable(note)) for note in _notes(found)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _labels(names: Sequence[str], limit: int) -> dict[str, str]:
    """Shorten long names, so that they stay different."""
    short = {name: printable(name) for name in names}
    short = {name: text if len(text) <= limit else f"…{text[1 - limit :]}" for name, text in short.items()}
    if len(set(short.values())) == len(names):
        return short
    return {name: f"{number} {text}"[:limit] for number, (name, text) in enumerate(short.items(), 1)}


def _legend(found: Mapping[str, Any], labels: Mapping[str, str], page: Page) -> list[str]:
    lines = [printable(f"{labels[name]}: {entry['model']}") for name, entry in found["models"].items()]
    if len(found["models"]) == 1 and not any(entry["errors"] for entry in found["files"]):
        return lines
    marks = [page.coloured(kind, f"{MARKS[kind]} {meaning}") for kind, meaning in KINDS.items()]
    return [*lines, f"Marks: {', '.join(marks)}"]


def _file(entry: Mapping[str, Any], labels: Mapping[str, str], metric: str, page: Page) -> list[str]:
    """Return a line with the errors of one file, then its texts."""
    alignments = {name: [Edit(*edit) for edit in edits] for name, edits in entry["alignments"].items()}
    texts = list(entry["texts"])
    first = REFERENCE if entry["reference"] is not None else labels[texts[0]]
    own = list(alignments.values())
    title = f"{entry['name']} ({entry['seconds']:.1f} s)"
    if entry["errors"]:
        length = sum(edit.kind != "insert" for edit in own[0])
        errors = ", ".join(f"{labels[name]} {number}" for name, number in entry["errors"].items())
        title += f": errors in {length} {UNITS[metric]}: {errors}"
    same = all(edit.kind == "equal" for edits in own for edit in edits)
    if not own or same:
        title += ", all texts are equal" if own else ""
        return [page.wrapped(printable(title)), *_plain(entry, page)]
    rows = [first, *(labels[name] for name in alignments)]
    return [page.wrapped(printable(title)), *page.table([printable(row) for row in rows], columns(own))]


def _plain(entry: Mapping[str, Any], page: Page) -> list[str]:
    text = printable(" ".join(next(iter(entry["texts"].values())).split()))
    return [page.wrapped(f"  {text or '(no text)'}")]


def _rates(found: Mapping[str, Any], labels: Mapping[str, str], page: Page) -> list[str]:
    scores = {name: entry["score"] for name, entry in found["models"].items()}
    if not all(scores.values()):
        return []
    metric = found["metric"].upper()
    lines = [["", f"{metric} %", "95 %", "sub", "del", "ins"]]
    for name, score in scores.items():
        counts = [str(score[key]) for key in ("substitutions", "deletions", "insertions")]
        lines.append([labels[name], _number(score["rate_percent"]), _pair(score["interval_percent"]), *counts])
    first = next(iter(scores.values()))
    size = f"{first['utterances']} files with {first['reference_length']} {UNITS[found['metric']]}"
    profile = f"profile {found['profile']['name']} {found['profile']['version']}"
    language = f", {found['language']}" if found["language"] else ""
    table = _aligned(lines)
    table = table if max(map(len, table)) <= page.width else _aligned([cells[:3] for cells in lines])
    return [page.wrapped(f"{size}{language}, {profile}. Intervals are by file."), *table]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(columns_wide, column)) for column in zip(*lines)]
    return ["  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip() for cells in lines]


def _difference(each: Mapping[str, Any], labels: Mapping[str, str], found: Mapping[str, Any]) -> str:
    names = f"{labels[each['system']]} against {labels[each['from']]}:"
    words = "" if each["disagreement_percent"] is None else f" {_number(each['disagreement_percent'])} edits per 100 "
    words = f",{words}{UNITS[found['metric']]}" if words else ""
    differ = f"Texts differ in {each['different_files']} of {len(found['files'])} files{words}."
    if each.get("difference_percent") is None:
        return f"{names} {differ}"
    points = f"{each['difference_percent']:+.2f} points"
    interval = f", 95 % {_pair(each['interval_percent'], '+')}" if each["interval_percent"] else ""
    speakers = each["interval_by_speaker_percent"]
    by_speaker = f", by speaker {_pair(speakers, '+')}" if speakers else ""
    tests = {"matched pairs": each["p_matched_pairs"], "bootstrap": each["p_bootstrap"]}
    shown = [f"p {_p_value(value)} ({name})" for name, value in tests.items() if value is not None]
    return f"{names} {points}{interval}{by_speaker}{''.join(f', {text}' for text in shown)}. {differ}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _notes(found: Mapping[str, Any]) -> list[str]:
    files, missing, unused = len(found["files"]), found["without_reference"], found["unused_references"]
    notes = []
    if missing and len(missing) < files:
        notes.append(f"{len(missing)} of {files} files have no reference and are not scored: {_listed(missing)}.")
    if unused:
        notes.append(f"{len(unused)} references belong to none of the files: {_listed(unused)}.")
    if failed := found["failed"]:
        number = len({each["name"] for each in failed})
        notes.append(f"{number} of {files + number} files failed and are not compared:")
        notes += _failures(failed, len(found["models"]))
    return notes


def _failures(failed: Sequence[Mapping[str, Any]], models: int) -> list[str]:
    """Return a line per file and reason, with the models if it is not the reason of all."""
    named: dict[tuple[str, str], list[str]] = {}
    for each in failed:
        named.setdefault((each["name"], each["reason"]), []).append(each["model"])
    return [
        f"{name}: {reason}" if len(names) == models else f"{name} ({', '.join(names)}): {reason}"
        for (name, reason), names in named.items()
    ]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(islice(names, EXAMPLES))
    return shown if len(names) <= EXAMPLES else f"{shown} and {len(names) - EXAMPLES} more"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _pair(pair: Sequence[float] | None, sign: str = "") -> str:
    return "-" if pair is None else f"{pair[0]:{sign}.2f} to {pair[1]:{sign}.2f}"
