"""What the page is about: the scores, logs and records of one experiment, and its runs by kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.figures import Metrics
from arkasr.reporting.origins import BASE, TEACHER
from arkasr.reporting.page.looks import Look, looks
from arkasr.reporting.report_facts import RunRecords, setting
from arkasr.reporting.tables import Scores


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        expdir: Experiment directory.
        sets: The test sets, in the order of the tables.
        scores: Content of scores.json by run.
        metrics: Training rows by run.
        records: Content of run.json by run, with the configuration under "config".
    """

    expdir: str
    sets: Sequence[TestSet]
    scores: Scores
    metrics: Metrics
    records: RunRecords

    @cached_property
    def looks(self) -> dict[str, Look]:
        """How each run is drawn."""
        return looks({run: paper_numbers.title(run) for run in self.scores})

    @cached_property
    def distilled(self) -> list[str]:
        """The runs that were trained by OPD."""
        return [run for run in self._others if _is_distilled(self.metrics.get(run, ()), self.records.get(run, {}))]

    @cached_property
    def controls(self) -> list[str]:
        """The runs that were trained here otherwise, except for Base and the teacher."""
        return [run for run in self._others if run not in self.distilled and self.metrics.get(run)]

    @property
    def _others(self) -> list[str]:
        return [run for run in self.scores if run not in (BASE, TEACHER)]

    @property
    def compared(self) -> list[str]:
        """The runs to compare with Base: the distilled ones, else all others. Without any, Base or the teacher."""
        alone = [run for run in (BASE, TEACHER) if run in self.scores][:1]
        return self.distilled or self._others or alone

    @property
    def base(self) -> str | None:
        """The run to compare with, None without Base, or if there is no other run than Base and the teacher."""
        return BASE if BASE in self.scores and BASE not in self.compared else None

    @property
    def shown(self) -> list[str]:
        """The runs in charts of parts, and whose transcripts are shown: Base, the teacher and the compared ones."""
        return [run for run in self.scores if run in (BASE, TEACHER, *self.compared)]


def _is_distilled(rows: Iterable[Mapping[str, Any]], record: Mapping[str, Any]) -> bool:
    return setting(record.get("config"), "objective") == "opd" or any("vuss" in row for row in rows)
