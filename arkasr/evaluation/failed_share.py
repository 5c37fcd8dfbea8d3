"""How many clips have failed over all ranks, and whether these are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from arkasr.data.reasons import Failure, counts
from arkasr.errors import UserError
from arkasr.evaluation.one_by_one import NOT_TRANSCRIBED
from arkasr.evaluation.transcribing import Result
from arkasr.evaluation.workers import Workers
from arkasr.utils.console import Progress, log


class ClipCounts:
    """Counts the clips of one transcription over all ranks, which must all create it.

    Args:
        workers: The ranks.
        total: Number of clips.
        max_share: Largest share of failed clips, from 0 to 1.
        path: The hypothesis file, for messages.
    """

    def __init__(self, workers: Workers, total: int, max_share: float, path: Path):
        self.workers, self.total, self.max_share, self.path = workers, total, max_share, path
        self._clips, self._failed, self._list = (workers.new_key() for _ in range(3))
        self._shown = 0

    def add(self, result: Result) -> None:
        """Count the clips of a batch.

        Args:
            result: The batch.

        Raises:
            UserError: Too many clips have failed. This is checked when transcription fails, because a teacher that
                fails for every clip need not try all of them.
        """
        self.workers.add(self._clips, result.num_clips)
        for failure in result.failures:
            log(f"dropped {failure}", on_every_rank=True)
        if failures := [*result.unread, *result.failures]:
            self.workers.append(self._list, [failures])
            failed = self.workers.add(self._failed, len(failures))
            if result.failures and failed > self.max_share * self.total:
                self.check(self._above_limit())

    def show(self, bar: Progress) -> None:
        """Update the progress of all ranks on rank 0.

        Args:
            bar: The progress.
        """
        if self.workers.first:
            shown, failed = self.workers.add(self._clips), self.workers.add(self._failed)
            bar.update(shown - self._shown, f"{failed} failed" if failed else "")
            self._shown = shown

    def failures(self, place: Mapping[str, int]) -> list[Failure]:
        """Return the clips of all ranks that have failed.

        Args:
            place: Place of each clip in the result. Others come last, sorted by id.

        Returns:
            The clips, in this order.
        """
        found = [failure for batch in self._batches() for failure in batch]
        return sorted(found, key=lambda failure: (place.get(failure.id, len(place)), failure.id))

    def _batches(self) -> list[list[Failure]]:
        """Return the failed clips of each batch, in the order in which ranks have listed them."""
        return [[Failure(*values) for values in batch] for batch in self.workers.listed(self._list)]

    def _above_limit(self) -> list[Failure]:
        """Return the clips up to the batch whose transcription failed above the limit. Empty if there is none.

        Other ranks list their next clips until they see that a rank has asked to end. The order of the list decides,
        so that the message does not depend on which rank is slow.
        """
        found: list[Failure] = []
        for batch in self._batches():
            found += batch
            if len(found) > self.max_share * self.total and any(one.kind == NOT_TRANSCRIBED for one in batch):
                return sorted(found, key=lambda failure: failure.id)
        return []

    def check(self, failures: Sequence[Failure], least: int = 0) -> None:
        """Check the number of failed clips.

        Args:
            failures: The clips that have failed.
            least: Number of clips that must not have failed.

        Raises:
            UserError: Too many clips have failed.
        """
        failed = len(failures)
        if failed <= self.max_share * self.total and self.total - failed >= least:
            return
        share = "all clips" if failed == self.total else f"more than data.max_failed_share={self.max_share:g}"
        raise UserError(
            f"{self.path}: {share} failed, {failed} of {self.total} ({counts(f.kind for f in failures)}); the first "
            f"is {failures[0]}; repair them and run the same command again; other clips are kept"
        )
