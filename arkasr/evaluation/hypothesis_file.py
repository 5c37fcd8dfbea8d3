"""Hypothesis files: the transcription of one manifest by all ranks, resumed and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from arkasr.data.batches import evaluation_cuts
from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.data.reasons import Failure
from arkasr.errors import UserError
from arkasr.evaluation.checks import has_type
from arkasr.evaluation.failed_share import ClipCounts
from arkasr.evaluation.part_files import PartFiles, line, read_rows
from arkasr.evaluation.transcribing import Result
from arkasr.evaluation.workers import Workers
from arkasr.utils.console import Progress, log
from arkasr.utils.files import flush

SAME_LENGTH = 0.1  # seconds by which the audio of a clip may differ from its manifest


@dataclass
class HypothesisFile:
    """The transcription of one manifest into one hypothesis file.

    Each rank appends its rows to its own partial file, `<path>.part-<rank>`. When all clips have their row, except
    for a limited share of failed clips, rank 0 writes the rows of all partial files to `path`, in the order of the
    manifest. An interrupted transcription resumes from the rows in the partial files of any number of ranks.

    Only rank 0 may call the methods other than `transcribe`.

    Attributes:
        path: The hypothesis file.
        manifest: Manifest of the clips.
        rules: How its cuts are read.
        max_seconds: Maximum audio seconds per batch, padding included.
        max_failed_share: Largest share of failed clips, from 0 to 1. If all clips fail, it does not count.
        name: Label of the progress line, such as "decode base test-clean".
        advice: What the user can do about cut transcripts, for a warning.
        failures: The clips of all ranks that failed in `transcribe`, in the order of the manifest. Empty on other ranks
            than rank 0.
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
        self.parts = PartFiles(self.path)

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
            self.parts.reopen()

    def discard(self) -> int:
        """Delete the hypotheses.

        Returns:
            The number of rows that were deleted.
        """
        files = [file for file in (self.path, *self.parts.paths()) if file.is_file()]
        num_rows = sum(len(read_rows(file)[0]) for file in files)
        for file in files:
            file.unlink()
        return num_rows

    def transcribe(self, workers: Workers, results: Callable[[Iterator[list[Cut]]], Iterable[Result]]) -> None:
        """Transcribe all clips that have no row in a partial file.

        Args:
            workers: The ranks. All of them must call this.
            results: Function from the cuts of all batches to one result per batch of this rank, in any order.

        Raises:
            UserError: Too many clips failed, over all ranks. The rows of the others stay in the partial files.
        """
        plan = workers.decide(lambda: self._plan(workers))
        counts = ClipCounts(workers, plan["clips"], self.max_failed_share, self.path)
        batches = evaluation_cuts(str(self.manifest), self.max_seconds, self.parts.ids(plan["sizes"]), self.rules)
        part = self.parts.of_rank(workers.rank)
        with Progress(self.name, plan["clips"], "clips", plan["done"]) as bar:
            with part.open("a", encoding="utf-8") as file:
                for result in results(batches):
                    file.write("".join(map(line, result.rows)))
                    file.flush()
                    counts.add(result)
                    counts.show(bar)
            flush([part])
            sizes = workers.collect([part.name, part.stat().st_size], lambda: counts.show(bar))
            counts.show(bar)
        if workers.first:
            self.parts.await_sizes(dict(sizes))
            self.failures = counts.failures(self._places())
            counts.check(self.failures, least=1)
            self._require_all()

    def _require_all(self) -> None:
        """Raise UserError if a clip has neither a row nor a reason why it has none."""
        missing = self.clips.keys() - self.parts.rows().keys() - {failure.id for failure in self.failures}
        if missing:
            raise UserError(
                f"{self.path}: {len(missing)} of {len(self.clips)} clips have no hypothesis, such as {min(missing)}; "
                "partial files were changed by another program; run the same command again"
            )

    def _places(self) -> dict[str, int]:
        """Return the place of each clip in the manifest."""
        return {clip: place for place, clip in enumerate(self.clips)}

    def _plan(self, workers: Workers) -> dict[str, Any]:
        """Repair the partial files. Return their sizes, the number of clips, and how many of them have a row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        done = self.parts.repair(self._is_current)
        self.parts.create(workers.world_size)
        return {"sizes": self.parts.sizes(), "clips": len(self.clips), "done": sum(clip in done for clip in self.clips)}

    def finish(self) -> None:
        """Write the rows of all partial files in the order of the manifest, and log their counts."""
        found, place = self.parts.rows(), self._places()
        rows = sorted(found.values(), key=lambda row: place.get(row["id"], len(place)))
        self.parts.merge(rows)
        looping, stopped = ([row.get(key) for row in rows] for key in ("looping", "stopped"))
        ends = f"{looping.count(True)} looping, {stopped.count(False)} cut at the token cap"
        if None in (*looping, *stopped):
            ends = "cut and looping transcripts are not reported"
        failed = len(self.failures)
        log(f"{self.path}: {len(rows)} clips, {ends}" + (f", {failed} failed" if failed else ""))
        if cut := stopped.count(False):
            share = f"{cut} of {len(rows)} transcripts ({cut / len(rows):.1%})"
            log(f"warning: {self.name}: {share} are cut at the token cap; {self.advice}")
