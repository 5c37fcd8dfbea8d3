"""SWEEP.md and sweep.csv: error rates, differences from controls, and costs of all rows of a sweep."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkasr.evaluation.chosen_sets import sets_of
from arkasr.evaluation.results_io import TestSet
from arkasr.evaluation.texts_io import read_utterances
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.sweeps.experiments import Repetition
from arkasr.sweeps.rows import COSTS, Results, Row, collect, control_of, rows_of
from arkasr.sweeps.statistics import difference, measured
from arkasr.sweeps.sweep_file import Sweep
from arkasr.utils.files import write_text

NOT_RUN = "not run"
MEASURED = (
    "trainings", "seeds", "rate_percent", "interval_percent", "interval_by_speaker_percent", "sd_seeds",
    "sd_roundings", "lowest", "highest",
)  # fmt: skip
COMPARED = (
    "difference_percent", "interval_percent", "interval_by_speaker_percent", "p_matched_pairs", "p_bootstrap",
    "interval_seeds_percent", "p_seeds", "sd_seeds", "seeds_better", "pairs",
)  # fmt: skip
SCALES = {"hours": (1.0, 2), "tokens": (1e3, 1), "flops": (1e15, 3), "wall_seconds": (60.0, 1)}  # divisor, digits
COST_TITLES = {"hours": "audio (h)", "tokens": "tokens (thousand)", "flops": "PFLOP", "wall_seconds": "time (min)"}


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


def write_table(table: Table, expdir: Path, figures: Sequence[Path]) -> list[Path]:
    """Write SWEEP.md and sweep.csv.

    Args:
        table: The table.
        expdir: Folder of the sweep.
        figures: Figures to show.

    Returns:
        The files.
    """
    paths = expdir / "SWEEP.md", expdir / "sweep.csv"
    numbers = {(row.label, name): table.numbers(row, name) for row in table.rows for name in table.sets}
    for path, text in zip(paths, (_markdown(table, numbers, expdir, figures), _csv(table, numbers))):
        write_text(path, text)
    return list(paths)


Numbers = Mapping[tuple[str, str], Mapping[str, Any]]


def _markdown(table: Table, numbers: Numbers, expdir: Path, figures: Sequence[Path]) -> str:
    file, parts = table.sweep.file, [f"# {table.sweep.title}"]
    parts.append(
        f"- configuration: `{file.conf}`, runs per point: {', '.join(file.runs)}, shared runs: "
        f"{', '.join(file.shared) or 'none'}\n"
        f"- seeds: {', '.join(map(str, file.seeds))}; roundings: {', '.join(map(str, file.roundings))}\n"
        "- Error rates are means over trainings. Intervals are 95 % bootstrap intervals of the mean, with utterances "
        "or speakers drawn.\n"
        "- SD is the standard deviation of single trainings, over seeds, and over roundings of the same seed."
    )
    for name, (tested, _) in table.sets.items():
        parts += [f"## {name}", _rates(table, numbers, name, tested)]
        for control in file.controls:
            if rows := _changes(table, numbers, name, control):
                parts += [f"### {name}: difference from {control}", rows]
    parts += ["## Cost", _costs(table)]
    parts += [f"![{path.stem}]({path.relative_to(expdir)})" for path in figures]
    if missing := _missing(table):
        parts += ["## Not run", missing]
    return "\n\n".join(parts) + "\n"


def _rates(table: Table, numbers: Numbers, name: str, tested: TestSet) -> str:
    header = ["row", f"{tested.metric.upper()} (%)", "95 % by utterance", "95 % by speaker", "SD over seeds",
              "SD over roundings", "lowest to highest", "trainings"]  # fmt: skip
    rows = []
    for row in table.rows:
        found, wanted = numbers[row.label, name], len(row.experiments())
        if not found.get("trainings"):
            rows.append([row.label, NOT_RUN, *["-"] * 5, f"0 of {wanted}"])
            continue
        ends = f"{format_number(found['lowest'])} to {format_number(found['highest'])}"
        rows.append([
            row.label, format_number(found["rate_percent"]), _interval(found["interval_percent"]),
            _interval(found["interval_by_speaker_percent"]), format_number(found["sd_seeds"]),
            format_number(found["sd_roundings"]), ends, f"{found['trainings']} of {wanted}",
        ])  # fmt: skip
    return markdown_table(header, rows)


def _interval(pair: Sequence[float] | None, sign: str = "") -> str:
    return format_interval(pair, sign).strip() or "-"


def _changes(table: Table, numbers: Numbers, name: str, control: str) -> str:
    header = ["row", "difference (points)", "95 % by utterance", "95 % by speaker", "p (matched pairs)",
              "p (bootstrap)", "95 % over seeds", "p over seeds", "seeds in which it is better"]  # fmt: skip
    rows = []
    for row in table.rows:
        found = numbers[row.label, name]["against"].get(control)
        if not found:
            rows += [] if found is None else [[row.label, NOT_RUN, *["-"] * 7]]
            continue
        rows.append([
            row.label, format_number(found["difference_percent"], sign="+"),
            _interval(found["interval_percent"], "+"), _interval(found["interval_by_speaker_percent"], "+"),
            _p_value(found["p_matched_pairs"]), _p_value(found["p_bootstrap"]),
            _interval(found["interval_seeds_percent"], "+"), _p_value(found["p_seeds"]),
            f"{found['seeds_better']} of {found['seeds']}",
        ])  # fmt: skip
    return markdown_table(header, rows) if rows else ""


def _p_value(value: float | None) -> str:
    return "<0.001" if value is not None and value < 0.001 else format_number(value, 3)


def _costs(table: Table) -> str:
    titles = [COST_TITLES[key] for key in COSTS]
    rows = []
    for row in table.rows:
        cells = [_scaled(cost[key], key) for cost in table.cost(row) for key in COSTS]
        rows.append([row.label, *cells])
    note = (
        "Means over trainings. The second four columns add all runs that a run starts from. Audio counts as often as "
        "it was heard. Tokens are those of the loss. Operations include those of the teacher in distillation, but "
        "neither the training of the teacher, nor its transcripts (stage 2), nor dev error rates."
    )
    return f"{markdown_table(['row', *titles, *(f'all {title}' for title in titles)], rows)}\n\n{note}"


def _scaled(value: float | None, key: str) -> str:
    divisor, digits = SCALES[key]
    return format_number(None if value is None else value / divisor, digits)


def _missing(table: Table) -> str:
    reasons: dict[tuple[str, str], list[Repetition]] = {}
    for row in table.rows:
        for repetition, reason in table.results[row.label].missing.items():
            reasons.setdefault((row.label, reason), []).append(repetition)
    return "\n".join(
        f"- {label} ({', '.join(each.name for each in found)}): {reason}" for (label, reason), found in reasons.items()
    )


def _csv(table: Table, numbers: Numbers) -> str:
    """Return one line per row and test set. Columns of a control begin with its name."""
    file = io.StringIO()
    controls = table.sweep.file.controls
    header = ["row", "point", "run", "test_set", "metric", *_columns(MEASURED)]
    header += [f"{control}:{column}" for control in controls for column in _columns(COMPARED)]
    header += [*COSTS, *(f"all_{key}" for key in COSTS)]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        own, everything = table.cost(row)
        for name, (tested, _) in table.sets.items():
            found = numbers[row.label, name]
            cells: list[Any] = [row.label, row.point.name if row.point else "", row.run, name, tested.metric]
            cells += _cells(found, MEASURED)
            for control in controls:
                cells += _cells(found["against"].get(control) or {}, COMPARED)
            writer.writerow([*cells, *own.values(), *everything.values()])
    return file.getvalue()


def _columns(keys: Sequence[str]) -> list[str]:
    return [name for key in keys for name in ([f"{key}_low", f"{key}_high"] if "interval" in key else [key])]


def _cells(values: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    cells: list[Any] = []
    for key in keys:
        value = values.get(key)
        cells += (value or [None, None]) if "interval" in key else [value]
    return [round(cell, 6) if isinstance(cell, float) else cell for cell in cells]
