"""Table 2: the valid union support size (VUSS) during distillation, before and after TD, of one or several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from arkasr.evaluation import paper_numbers
from arkasr.reporting.markdown import format_number, markdown_table

Rows = Sequence[Mapping[str, Any]]  # training rows of one run
CONDITIONS = {"base_opd": "Before TD", "base_td_opd": "After TD"}
OVERALL = ("Mean", "Min", "Max")
DECILES = {f"decile_{d}": f"{10 * d} to {10 * d + 10} %" for d in range(10)}
WORDS = {"correct_word": "Correct words", "wrong_word": "Wrong words"}


class Spread(NamedTuple):
    """A number over seeds.

    Attributes:
        mean: Mean over the seeds.
        deviation: Sample standard deviation over the seeds, None for one seed.
        seeds: Number of seeds.
    """

    mean: float
    deviation: float | None
    seeds: int

    def __str__(self) -> str:
        """Return the mean, followed by the standard deviation if there are several seeds."""
        return format_number(self.mean) + (f" ± {format_number(self.deviation)}" if self.deviation is not None else "")


def spread(values: Sequence[float | None]) -> Spread | None:
    """Average a number over seeds.

    Args:
        values: One number per seed, None where it was not measured.

    Returns:
        Mean and standard deviation over the seeds that have the number, None without any.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def summary(rows: Rows) -> dict[str, float]:
    """Summarise the VUSS of one run.

    Args:
        rows: Its training rows. Rows without VUSS are left out. Older versions logged 0 for them.

    Returns:
        - `Mean`, `Min` and `Max` over the logged steps of the mean over positions.
        - `steps`, the number of these steps.
        - `decile_0` to `decile_9`, means over the steps with diagnostics.
        - `correct_word` and `wrong_word`, means over all positions of the steps with diagnostics.

        What was not logged is absent.
    """
    values = [row["vuss"] for row in rows if row.get("vuss")]
    if not values:
        return {}
    found = {"Mean": statistics.fmean(values), "Min": min(values), "Max": max(values), "steps": float(len(values))}
    for key in DECILES:
        if logged := [row[f"vuss/{key}"] for row in rows if row.get(f"vuss/{key}")]:
            found[key] = statistics.fmean(logged)
    for key in WORDS:
        pairs = [(row[f"vuss/{key}"], row.get(f"positions/{key}") or 0.0) for row in rows if row.get(f"vuss/{key}")]
        if count := math.fsum(number for _, number in pairs):
            found[key] = math.fsum(value * number for value, number in pairs) / count
    return found


def over_seeds(seeds: Sequence[Rows]) -> dict[str, Spread]:
    """Average the VUSS of one run over seeds.

    Args:
        seeds: Training rows of the run, one list per seed.

    Returns:
        The numbers of `summary`, with their spread. A seed without a number is not averaged.
    """
    each = [summary(rows) for rows in seeds]
    names = dict.fromkeys(name for numbers in each for name in numbers)
    found = {name: spread([numbers.get(name) for numbers in each]) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def overall(runs: Mapping[str, Sequence[Rows]], top_k: Mapping[str, Any], paper: bool = True) -> str:
    """Format Table 2 in Markdown: mean, minimum and maximum over the logged steps of the mean VUSS of their positions.

    Args:
        runs: Training rows by run, one list per seed.
        top_k: k of the distilled runs, by run.
        paper: Add the paper's values.

    Returns:
        The table, one row before TD and one after. With several seeds, their mean and standard deviation. Without the
        paper's values, a row that has no others is left out, and the table is empty if there is none.
    """
    found = {run: over_seeds(runs.get(run, ())) for run in CONDITIONS}
    several = any(numbers["Mean"].seeds > 1 for numbers in found.values() if numbers)
    rows = []
    for run, numbers in found.items():
        if not numbers and not paper:
            continue
        cells = [_cell(numbers, name) for name in OVERALL]
        cells.append(_steps(numbers))
        cells += [str(numbers["Mean"].seeds) if numbers else "-"] if several else []
        cells.append(str(top_k.get(run) or "-") if numbers else "-")
        paper_cells = [*map(format_number, paper_numbers.TABLE2[run]), str(paper_numbers.TOP_K)] if paper else []
        rows.append([condition(run), *cells, *paper_cells])
    header = ["Condition", *OVERALL, "Logged steps", *(["Seeds"] if several else []), "k"]
    header += [f"paper: {name}" for name in (*OVERALL, "k") if paper]
    return markdown_table(header, rows) if rows else ""


def by_place(runs: Mapping[str, Sequence[Rows]]) -> str:
    """Format the VUSS by tenth of the transcript, and at correct and wrong words, in Markdown.

    Args:
        runs: See `overall`.

    Returns:
        The table, one row before TD and one after. Empty if no run has these diagnostics.
    """
    return rows_by_place({condition(run): runs.get(run, ()) for run in CONDITIONS}, "Condition")


def rows_by_place(seeds: Mapping[str, Sequence[Rows]], title: str) -> str:
    """Format the VUSS of any runs by place in Markdown, such as those of a sweep.

    Args:
        seeds: Training rows by title of the row, one list per seed.
        title: Title of the first column.

    Returns:
        One row per title: the mean over all positions, by tenth of the transcript, and at correct and wrong words.
        Empty if no run has these diagnostics.
    """
    columns, rows = {"Mean": "Mean"} | DECILES | WORDS, []
    for name, runs in seeds.items():
        numbers = over_seeds(runs)
        if any(key in numbers for key in DECILES | WORDS):
            rows.append([name, *(_cell(numbers, key) for key in columns)])
    return markdown_table([title, *columns.values()], rows) if rows else ""


def condition(run: str) -> str:
    """Return the title of a row of Table 2.

    Args:
        run: `base_opd` or `base_td_opd`.

    Returns:
        Such as "Before TD (Base+OPD)".
    """
    return f"{CONDITIONS[run]} ({paper_numbers.title(run)})"


def _cell(numbers: Mapping[str, Spread], name: str) -> str:
    return str(numbers[name]) if name in numbers else "-"


def _steps(numbers: Mapping[str, Spread]) -> str:
    """Return the number of logged steps of all seeds together."""
    return str(round(numbers["steps"].mean * numbers["steps"].seeds)) if numbers else "-"
