"""Facts in RESULTS.md about runs, versions and teachers. They hold no passwords."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from arkasr.evaluation import inputs, paper_numbers
from arkasr.evaluation.run_records import trained_here
from arkasr.reporting.markdown import format_number, markdown_table
from arkasr.reporting.profile_table import profile_names
from arkasr.reporting.tables import Scores
from arkasr.utils.redact import without_secrets

Metrics = dict[str, list[dict[str, Any]]]
RunRecords = dict[str, dict[str, Any]]

# Settings shown for each run, by their key in the configuration. The last two apply to distillation only.
SETTINGS = {
    "seed": "seed",
    "steps": "train.steps",
    "peak learning rate": "optim.lr",
    "top-k": "distill.top_k",
    "temperature": "loss.options.temperature",
}
SEEN = {"hours of audio": "hours_seen", "epochs": "epochs_seen"}  # columns, and keys of the last metrics row
OPD_SETTINGS = ("top-k", "temperature")


def setting(config: Any, path: str) -> str:
    """Return one value of a configuration as text.

    Args:
        config: The configuration as read from YAML, or None.
        path: Dotted key.

    Returns:
        The value, or "-" if there is none, as `train.steps` of a run whose length is given in epochs or hours.
    """
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return "-" if config is None or (path == "train.steps" and not config) else str(config)


def training_facts(metrics: Metrics, records: RunRecords) -> str:
    """Format the table of training runs: last logged step and main settings. Columns without values are left out.

    Args:
        metrics: Training rows by run.
        records: Content of run.json by run, with the configuration under "config".

    Returns:
        Markdown table, one row per run, and what each run starts from. Models that were not trained here are left out.
    """
    rows = []
    for run, record in records.items():
        if not trained_here(run, record):
            continue
        steps = metrics.get(run) or []
        distilled = any("vuss" in row for row in steps)
        applicable = ["seed"] if setting(record.get("config"), "objective") == "none" else list(SETTINGS)
        applicable = [name for name in applicable if distilled or name not in OPD_SETTINGS]
        row = {"run": paper_numbers.title(run), "last logged step": str(steps[-1]["step"]) if steps else "-"}
        for name, key in SEEN.items():
            row[name] = format_number(steps[-1].get(key), 2) if steps else "-"
        for name, path in SETTINGS.items():
            row[name] = setting(record.get("config"), path) if name in applicable else "-"
        rows.append(row)
    if not rows:
        return "No run of this experiment was scored."
    columns = [key for key in rows[0] if any(row[key] != "-" for row in rows)]
    table = markdown_table([key.capitalize() for key in columns], [[row[key] for key in columns] for row in rows])
    return "\n\n".join([table, *filter(None, [starts(records)])])


def starts(records: RunRecords) -> str:
    """List the model that each run starts from, and the part of it that is trained. Runs with fresh weights have none.

    Args:
        records: Content of run.json by run, with the configuration under "config".

    Returns:
        Markdown list, empty if no run starts from a model.
    """
    lines = []
    for run, record in records.items():
        config = record.get("config")
        path, rank = setting(config, "model.path"), setting(config, "model.lora.rank")
        if record.get("checkpoint") or path in ("-", ""):
            continue
        if setting(config, "objective") == "none":
            text = f"`{without_secrets(path)}`, not trained"
        elif rank not in ("-", "0"):
            encoder = " and encoder" if setting(config, "model.lora.encoder") == "True" else ""
            text = f"starts from `{without_secrets(path)}`, trains LoRA adapters of rank {rank} on decoder{encoder}"
        else:
            text = f"starts from `{without_secrets(path)}`"
        lines.append(f"- {paper_numbers.title(run)}: {text}")
    return "\n".join(lines)


def environment(scores: Scores, records: RunRecords) -> str:
    """List the date, the scorer, and the commit and versions of the runs. Runs that share them are grouped.

    Args:
        scores: Content of scores.json by run.
        records: Content of run.json by run.

    Returns:
        Markdown list.
    """
    first = next(iter(scores.values()))
    names = profile_names(entry for content in scores.values() for entry in content["sets"].values())
    lines = [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- scored with: profile{'s' if len(names) > 1 else ''} {', '.join(names)}, jiwer {first['jiwer']}, "
        f"{first['bootstrap']['resamples']} bootstrap resamples, seed {first['bootstrap']['seed']}",
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for run, record in records.items():
        if not trained_here(run, record):
            continue
        versions = ", ".join(f"{name} {value}" for name, value in sorted((record.get("versions") or {}).items()))
        groups.setdefault((str(record.get("commit") or "not recorded"), versions), []).append(paper_numbers.title(run))
    for (commit, versions), names in groups.items():
        lines.append(f"- {', '.join(names)}: commit `{commit}`, {versions or 'versions not recorded'}")
    return "\n".join([*lines, *_teachers(scores), *_checkpoints(scores), *_unrecorded(scores)])


def _teachers(scores: Scores) -> list[str]:
    groups: dict[str, list[str]] = {}
    for run, content in scores.items():
        if content.get("teacher"):
            is_row = run == "teacher" or content.get("checkpoint")
            name = f"row {paper_numbers.title(run)}" if is_row else paper_numbers.title(run)
            groups.setdefault(inputs.describe_teacher(content["teacher"]), []).append(name)
    return [f"- teacher ({', '.join(names)}): {teacher}" for teacher, names in groups.items()]


def _checkpoints(scores: Scores) -> list[str]:
    lines = []
    for run, content in scores.items():
        found = content.get("checkpoint") or {}
        if found and not found["plugin"]:  # a plugin is among the teachers
            weights = content["weights"][: inputs.SHOWN_DIGITS] or "unknown"
            lines.append(f"- row {run}: {found['path']}, weights {weights}")
    return lines


def _unrecorded(scores: Scores) -> list[str]:
    runs = [paper_numbers.title(run) for run, content in scores.items() if not content.get("recorded", True)]
    text = "decoded by an older version of arkasr. Weights and data of the hypotheses are not recorded and not compared"
    return [f"- {', '.join(runs)}: {text}"] if runs else []
