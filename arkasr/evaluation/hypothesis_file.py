"""Hypothesis files: one JSON row per clip, written to a partial file first, resumed and repaired."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from arkasr.data.batches import evaluation_cuts
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import Failure, counts
from arkasr.errors import UserError
from arkasr.evaluation.checks import has_type, json_lines
from arkasr.evaluation.results_io import ROW_TYPES
from arkasr.evaluation.transcribing import Result
from arkasr.utils.console import Progress, log
from arkasr.utils.files import publish

SAME_LENGTH = 0.1  # seconds by which the audio of a clip may differ from its manifest


@dataclass
class HypothesisFile:
    """The transcription of one manifest into one hypothesis file.

    Rows are written to `<path>.part`. The file gets its final name when all clips have their row, except for a limited
    share of failed clips, and its rows are then in the order of the manifest. An interrupted transcription resumes from
    the rows in the partial file.

    Attributes:
        path: The hypothesis file.
        manifest: Manifest of the clips.
        rules: How its cuts are read.
        max_seconds: Maximum audio seconds per batch, padding included.
        max_failed_share: Largest share of failed clips, from 0 to 1. If all clips fail, it does not count.
        name: Label of the progress line, such as "decode base test-clean".
        advice: What the user can do about cut transcripts, for a warning.
        failures: The clips that failed in `transcribe`, in the order of the manifest.
    """

    path: Path
    manifest: Path
    rules: Rules
    max_seconds: float
    max_failed_share: float
    name: str
    advice: str
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.part = self.path.with_name(f"{self.path.name}.part")

    @cached_property
    def clips(self) -> dict[str, float]:
        """Ids of all clips of the manifest, and their durations in seconds."""
        return {cut.id: cut.duration for cut in read_cuts(str(self.manifest), self.rules)}

    def is_complete(self) -> bool:
        """Return whether the file exists, is not damaged, and has a row for every clip."""
        if not self.path.is_file():
            return False
        rows, damaged = read_rows(self.path)
        return not damaged and all(clip in rows and self._is_current(rows[clip]) for clip in self.clips)

    def _is_current(self, row: dict[str, Any]) -> bool:
        """Return whether a row may be of this clip: the clip of another manifest can have the same id."""
        recorded, present = row.get("seconds"), self.clips.get(row["id"])
        if recorded is None or present is None or not has_type(recorded, float):
            return True
        return abs(recorded - present) <= SAME_LENGTH

    def reopen(self) -> None:
        """Make an incomplete hypothesis file a partial file again."""
        if self.path.is_file():
            log(f"{self.path}: clips without a hypothesis are transcribed again")
            self.path.replace(self.part)

    def discard(self) -> int:
        """Delete the hypotheses.

        Returns:
            The number of rows that were deleted.
        """
        files = [file for file in (self.path, self.part) if file.is_file()]
        num_rows = sum(len(read_rows(file)[0]) for file in files)
        for file in files:
            file.unlink()
        return num_rows

    def transcribe(self, results: Callable[[Iterator[list[Cut]]], Iterable[Result]]) -> None:
        """Transcribe all clips that have no row in the partial file.

        Args:
            results: Function from the cuts of all batches to one result per batch, in any order.

        Raises:
            UserError: Too many clips failed. The rows of the others stay in the partial file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        clips, finished = self.clips, self._repair()
        done = sum(clip in finished for clip in clips)
        with self.part.open("a", encoding="utf-8") as file, Progress(self.name, len(clips), "clips", done) as progress:
            for result in results(evaluation_cuts(str(self.manifest), self.max_seconds, finished, self.rules)):
                self._count(result, len(clips))
                file.writelines(map(_line, result.rows))
                file.flush()
                progress.update(result.num_clips, f"{len(self.failures)} failed" if self.failures else "")
        place = self._places()
        self.failures.sort(key=lambda failure: place.get(failure.id, len(place)))
        self._check_share(len(clips), least=1)

    def _places(self) -> dict[str, int]:
        """Return the place of each clip in the manifest."""
        return {clip: place for place, clip in enumerate(self.clips)}

    def _repair(self) -> set[str]:
        """Return the ids in the partial file. Write it again if it has other lines than rows of these clips."""
        rows, damaged = read_rows(self.part)
        current = {name: row for name, row in rows.items() if self._is_current(row)}
        if damaged or len(current) < len(rows):
            other = f"{damaged} damaged lines and {len(rows) - len(current)} of clips with another duration"
            log(f"{self.part}: {other} left out; their clips are transcribed again")
        if damaged or len(current) < len(rows) or (rows and not self.part.read_bytes().endswith(b"\n")):
            self._replace(current.values())
        return set(current)

    def _replace(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the partial file again, with these rows."""
        new = self.part.with_name(f"{self.part.name}.new")
        new.write_text("".join(map(_line, rows)), encoding="utf-8")
        publish(new, self.part)

    def _count(self, result: Result, total: int) -> None:
        for failure in result.failures:
            log(f"dropped {failure}")
        self.failures += [*result.unread, *result.failures]
        if result.failures:  # now, because a teacher that fails for every clip need not try all of them
            self._check_share(total)

    def _check_share(self, total: int, least: int = 0) -> None:
        """Raise UserError if too many of `total` clips have failed, or if fewer than `least` have not."""
        failed = len(self.failures)
        if failed <= self.max_failed_share * total and total - failed >= least:
            return
        all_or_share = "all clips" if failed == total else f"more than data.max_failed_share={self.max_failed_share:g}"
        raise UserError(
            f"{self.part}: {all_or_share} failed, {failed} of {total} ({counts(f.kind for f in self.failures)}); the "
            f"first is {self.failures[0]}; repair them and run the same command again; other clips are kept"
        )

    def finish(self) -> None:
        """Sort the rows of the partial file, give it its final name, and log its counts."""
        found, place = list(read_rows(self.part)[0].values()), self._places()
        rows, failed = sorted(found, key=lambda row: place.get(row["id"], len(place))), len(self.failures)
        if rows != found:
            self._replace(rows)
        publish(self.part, self.path)
        looping, stopped = ([row.get(key) for row in rows] for key in ("looping", "stopped"))
        ends = f"{looping.count(True)} looping, {stopped.count(False)} cut at the token cap"
        if None in (*looping, *stopped):
            ends = "cut and looping transcripts are not reported"
        log(f"{self.path}: {len(rows)} clips, {ends}" + (f", {failed} failed" if failed else ""))
        if cut := stopped.count(False):
            share = f"{cut} of {len(rows)} transcripts ({cut / len(rows):.1%})"
            log(f"warning: {self.name}: {share} are cut at the token cap; {self.advice}")


def read_rows(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Read the rows of a complete, partial or damaged hypothesis file.

    Args:
        path: The file. It may be missing.

    Returns:
        Rows by id, in the order of the file, and the number of lines that are left out: those that are not rows (such
        as a torn last line), and those that repeat an id.
    """
    rows: dict[str, dict[str, Any]] = {}
    damaged = 0
    for _, value in json_lines(path) if path.is_file() else ():
        if _is_row(value) and value["id"] not in rows:
            rows[value["id"]] = value
        else:
            damaged += 1
    return rows, damaged


def _is_row(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("id") is None or value.get("hypothesis") is None:
        return False
    return all(value.get(key) is None or has_type(value[key], kind) for key, kind in ROW_TYPES.items())


def _line(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    is_utf8 = text.encode("utf-8", "replace").decode() == text  # false for half of a surrogate pair
    return (text if is_utf8 else json.dumps(row)) + "\n"
