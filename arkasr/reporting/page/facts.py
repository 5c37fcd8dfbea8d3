"""Tables of settings that differ between runs, and of what each run has cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arkasr.evaluation.paper_numbers import title as run_title
from arkasr.evaluation.run_records import trained_here
from arkasr.reporting.figures import Metrics
from arkasr.reporting.markdown import format_number
from arkasr.reporting.page.blocks import Paragraph, Section, spans, table
from arkasr.reporting.report_facts import RunRecords
from arkasr.utils.redact import values_without_secrets

SETTINGS = "Keys whose values differ between the runs. {same} keys are equal. `config.yaml` of each run has all."
COST = """\
Audio and tokens count repetitions. Operations are those of all training steps, teacher and rollouts included, as
`arkasr plan` counts them. Decoding the test sets is not included."""
FROM_LOG = "Times marked ~ are the sum of the logged steps, because `run.json` has none."
NAMES_ONLY = ("run",)  # keys that name a run and set nothing


def flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Flatten a configuration.

    Args:
        config: Configuration as read from YAML.
        above: Dotted key of its section.

    Yields:
        Dotted key and value as text. Passwords are left out.
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)


def settings(records: RunRecords) -> Section | str:
    """Build the section of settings.

    Args:
        records: Content of run.json by run, with the configuration under "config".

    Returns:
        The section, or why there is none.
    """
    trained = {run: record for run, record in records.items() if trained_here(run, record) and record.get("config")}
    if len(trained) < 2:
        return "fewer than two runs have a config.yaml to compare"
    values = {run: dict(flat(values_without_secrets(record["config"]))) for run, record in trained.items()}
    keys = [key for key in dict.fromkeys(key for found in values.values() for key in found) if key not in NAMES_ONLY]
    different = [key for key in keys if len({found.get(key) for found in values.values()}) > 1]
    rows = [[f"`{key}`", *(found.get(key, "-") or "''" for found in values.values())] for key in different]
    header = ["Key", *(run_title(run) for run in values)]
    text = Paragraph(spans(SETTINGS.format(same=len(keys) - len(different))))
    return Section("Settings", blocks=[text, table(header, rows, [False] * len(header))])


def cost(metrics: Metrics, records: RunRecords) -> Section | str:
    """Build the section of costs: steps, audio, tokens, time, operations and memory.

    Args:
        metrics: Training rows by run.
        records: Content of run.json by run.

    Returns:
        The section, or why there is none.
    """
    runs = [run for run, record in records.items() if trained_here(run, record) and metrics.get(run)]
    if not runs:
        return "no run of this experiment that was scored has training rows"
    rows = [[run_title(run), *_cost(metrics[run], records[run])] for run in runs]
    header = ["Run", "Steps", "Audio (h)", "Epochs", "Tokens", "Wall time", "Operations (TFLOP)", "Peak memory (GiB)"]
    shown = [column for column in range(len(header)) if any(row[column] != "-" for row in rows)]
    notes = [COST, *([FROM_LOG] if any(cell.startswith("~") for row in rows for cell in row) else [])]
    text = Paragraph(spans(" ".join(" ".join(notes).split())))
    return Section("Cost", blocks=[text, table([header[i] for i in shown], [[row[i] for i in shown] for row in rows])])


def _cost(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> list[str]:
    last = rows[-1]
    hours, tokens = record.get("hours") or last.get("hours_seen"), record.get("tokens") or last.get("tokens_seen")
    flops, memory = record.get("flops"), [row["memory/peak_gib"] for row in rows if row.get("memory/peak_gib")]
    return [
        f"{last['step']:,}",
        format_number(hours, 2),
        format_number(last.get("epochs_seen"), 2),
        "-" if tokens is None else f"{tokens:,.0f}",
        _wall_time(rows, record.get("wall_seconds")),
        "-" if not flops else f"{flops / 1e12:,.4g}",
        format_number(max(memory, default=None), 2),
    ]


def _wall_time(rows: Sequence[Mapping[str, Any]], recorded: float | None) -> str:
    """Return the recorded wall time, or the sum of the logged times, marked by ~."""
    keys = ("time/step", "time/dev", "time/save")
    seconds = recorded or sum(row.get(key) or 0.0 for row in rows for key in keys)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
    clock = clock.replace(" ", "\u00a0")
    return "-" if not seconds else clock if recorded else f"~{clock}"
