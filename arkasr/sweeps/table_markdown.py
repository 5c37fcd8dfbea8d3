"""SWEEP.md: the numbers of a sweep as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.markdown import format_interval, format_number, markdown_table
from arkasr.reporting.vuss_table import Rows, rows_by_place
from arkasr.sweeps.repetitions import Repetition
from arkasr.sweeps.results import COSTS
from arkasr.sweeps.table import Numbers, Table

NOT_RUN = "not run"
DIVISORS = {"hours": (1.0, 2), "tokens": (1e3, 1), "wall_seconds": (60.0, 1)}  # of the unit shown, and digits
COST_TITLES = {"hours": "audio (h)", "tokens": "tokens (thousand)", "flops": "operations", "wall_seconds": "time (min)"}
PREFIXES = ("", "K", "M", "G", "T", "P", "E", "Z")  # powers of 1000


def markdown(table: Table, numbers: Numbers, figures: Sequence[str]) -> str:
    """Write all numbers as Markdown.

    Args:
        table: The table.
        numbers: Result of `Table.all_numbers`.
        figures: File names of the figures, relative to the file of the table.

    Returns:
        The text of SWEEP.md.
    """
    file, parts = table.sweep.file, [f"# {table.sweep.title}", _heading(table)]
    for name, (tested, _) in table.sets.items():
        parts += [f"## {name}", _rates(table, numbers, name, tested)]
        for control in file.controls:
            if rows := _changes(table, numbers, name, control):
                parts += [f"### {name}: difference from {control}", rows]
    parts += ["## Cost", _costs(table)]
    if sizes := _support_sizes(table):
        parts += ["## Support sizes (VUSS)", sizes]
    parts += [f"![{Path(name).stem}]({name})" for name in figures]
    if missing := _missing(table):
        parts += ["## Not run", missing]
    return "\n\n".join(parts) + "\n"


def _heading(table: Table) -> str:
    file = table.sweep.file
    once = (
        f"\n- Trained once for all seeds: {', '.join(file.once)}. Each seed is compared with that one training. "
        "Intervals, p values and SD over seeds do not cover other trainings of these runs."
    )
    return (
        f"- configuration: `{file.conf}`, runs per point: {', '.join(file.runs)}, shared runs: "
        f"{', '.join(file.shared) or 'none'}\n"
        f"- seeds: {', '.join(map(str, file.seeds))}; roundings: {', '.join(map(str, file.roundings))}\n"
        "- Error rates are means over seeds. Of several roundings of a seed, the lowest number counts. Intervals are "
        "95 % bootstrap intervals of the mean, with utterances or speakers drawn.\n"
        "- SD is the standard deviation of single trainings, over seeds, and over roundings of the same seed."
    ) + (once if file.once else "")


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
              "p (bootstrap)", "95 % over seeds", "p over seeds", "SD over roundings", "better seeds"]  # fmt: skip
    rows = []
    for row in table.rows:
        found = numbers[row.label, name]["against"].get(control)
        if not found:
            rows += [] if found is None else [[row.label, NOT_RUN, *["-"] * 8]]
            continue
        rows.append([
            row.label, format_number(found["difference_percent"], sign="+"),
            _interval(found["interval_percent"], "+"), _interval(found["interval_by_speaker_percent"], "+"),
            _p_value(found["p_matched_pairs"]), _p_value(found["p_bootstrap"]),
            _interval(found["interval_seeds_percent"], "+"), _p_value(found["p_seeds"]),
            format_number(found["sd_roundings"]),
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


def _support_sizes(table: Table) -> str:
    """Return the VUSS of the distilled runs by place, as in Table 2. Of each seed, the first rounding counts."""
    seeds: dict[str, list[Rows]] = {}
    for row in table.rows:
        first: dict[int, Rows] = {}
        for repetition, metrics in table.results[row.label].metrics.items():
            first.setdefault(repetition.seed, metrics)
        seeds[row.label] = list(first.values())
    note = (
        "Mean ± SD over seeds of the mean over steps: over all positions, by tenth of the transcript, and at the words "
        "of the student's own transcripts that are correct and wrong. docs/metrics.md defines them."
    )
    shown = rows_by_place(seeds, "row")
    return f"{shown}\n\n{note}" if shown else ""


def _scaled(value: float | None, key: str) -> str:
    if value is None or key != "flops":
        divisor, digits = DIVISORS.get(key, (1.0, 0))
        return format_number(None if value is None else value / divisor, digits)
    power = min(max(len(str(int(value))) - 1, 0) // 3, len(PREFIXES) - 1)
    return f"{value / 1000**power:.3g} {PREFIXES[power]}FLOP"


def _missing(table: Table) -> str:
    reasons: dict[tuple[str, str], list[Repetition]] = {}
    for row in table.rows:
        for repetition, reason in table.results[row.label].missing.items():
            reasons.setdefault((row.label, reason), []).append(repetition)
    return "\n".join(
        f"- {label} ({', '.join(each.name for each in found)}): {reason}" for (label, reason), found in reasons.items()
    )
