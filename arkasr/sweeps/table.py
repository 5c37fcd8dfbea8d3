"""All numbers of a sweep: error rates, differences from controls, and costs of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkasr.evaluation.chosen_sets import sets_of
from arkasr.evaluation.results_io import TestSet
from arkasr.evaluation.texts_io import read_utterances
from arkasr.sweeps.results import COSTS, Results, collect
from arkasr.sweeps.rows import Row, control_of, rows_of
from arkasr.sweeps.statistics import difference, measured
from arkasr.sweeps.sweep_file import Sweep

Numbers = Mapping[tuple[str, str], Mapping[str, Any]]  # by label of the row and test set, see `Table.numbers`


@dataclass(frozen=True)
class Table:
    """All numbers of a sweep.

    Attributes:
        sweep: The sweep.
        rows: The rows.
        sets: Test sets with the speaker of each utterance, by name.
        results: What was measured, by row.
    """

    sweep: Sweep
    rows: list[Row]
    sets: dict[str, tuple[TestSet, list[str]]]
    results: dict[str, Results]

    def all_numbers(self) -> Numbers:
        """Return the numbers of all rows on all test sets (see `numbers`)."""
        return {(row.label, name): self.numbers(row, name) for row in self.rows for name in self.sets}

    def numbers(self, row: Row, name: str) -> dict[str, Any]:
        """Return the numbers of one row on one test set, and its differences from the controls by name.

        Args:
            row: The row.
            name: Name of the test set.

        Returns:
            See `arkasr.sweeps.statistics.measured`, with `against`: see `difference`, by control.
        """
        tallies, speakers = self.results[row.label].tallies[name], self.sets[name][1]
        against = {}
        for control in self.sweep.file.controls:
            other = control_of(row, control, self.rows)
            if other is not None:
                against[control] = difference(tallies, self.results[other.label].tallies[name], speakers)
        return measured(tallies, speakers) | {"against": against}

    def cost(self, row: Row) -> tuple[dict[str, float | None], dict[str, float | None]]:
        """Return the mean cost of one row over repetitions, alone and with all runs that it starts from.

        Args:
            row: The row.

        Returns:
            Two mappings of `COSTS`. None is unknown.
        """
        found = list(self.results[row.label].costs.values())
        own = {key: _mean([cost[key] for cost in found if key in cost]) for key in COSTS}
        parent = row.parent()
        if parent is None:
            return own, own
        if parent.label not in self.results:
            return own, dict.fromkeys(COSTS)
        below = self.cost(parent)[1]
        return own, {key: _sum(own[key], below[key]) for key in COSTS}


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def read_table(sweep: Sweep, expdir: Path, datadir: Path) -> Table:
    """Read the results of a sweep.

    Args:
        sweep: The sweep.
        expdir: Its folder.
        datadir: Data directory.

    Returns:
        The table.

    Raises:
        UserError: The data directory has no test sets, or they cannot be read.
    """
    sets = {tested.name: (tested, read_utterances(tested.manifest)) for tested in sets_of(datadir)}
    rows = rows_of(sweep)
    results = {row.label: collect(row, expdir, sets) for row in rows}
    speakers = {name: (tested, [each.speaker for each in found.values()]) for name, (tested, found) in sets.items()}
    return Table(sweep, rows, speakers, results)
