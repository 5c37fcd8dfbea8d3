"""Facts in RESULTS.md about corpus, runs, versions, teachers and commands. They hold no passwords."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import inputs, paper_numbers, run_records
from arkasr.evaluation.markdown import format_number, markdown_table
from arkasr.evaluation.tables import Scores
from arkasr.utils.console import log
from arkasr.utils.redact import command_without_secrets

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
OPD_SETTINGS = ("top-k", "temperature")


def setting(config: Any, path: str) -> str:
    """Return one value of a configuration as text.

    Args:
        config: The configuration as read from YAML, or None.
        path: Dotted key.

    Returns:
        The value, or "-" if there is none.
    """
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return "-" if config is None else str(config)


def corpus_facts(corpus: dict) -> str:
    """Format the corpus table: cuts, hours and speakers of each set, and what was dropped and why.

    Args:
        corpus: Content of corpus.json.

    Returns:
        Markdown table.
    """
    rows = []
    for name, facts in (corpus.get("sets") or {}).items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted((facts.get("dropped") or {}).items()))
        cells = [str(facts.get("cuts", "-")), format_number(facts.get("hours"), 3), str(facts.get("speakers") or "-")]
        rows.append([name, *cells, dropped or "none"])
    return markdown_table(["Set", "Cuts", "Hours", "Speakers", "Dropped"], rows)


def training_facts(metrics: Metrics, records: RunRecords) -> str:
    """Format the table of training runs: last logged step and main settings. Columns without values are left out.

    Args:
        metrics: Training rows by run.
        records: Content of run.json by run, with the configuration under "config".

    Returns:
        Markdown table, one row per run.
    """
    rows = []
    for run, record in records.items():
        steps = metrics.get(run) or []
        distilled = any("vuss" in row for row in steps)
        row = {"run": paper_numbers.title(run), "last logged step": str(steps[-1]["step"]) if steps else "-"}
        for name, path in SETTINGS.items():
            row[name] = setting(record.get("config"), path) if distilled or name not in OPD_SETTINGS else "-"
        rows.append(row)
    columns = [key for key in rows[0] if any(row[key] != "-" for row in rows)]
    return markdown_table([key.capitalize() for key in columns], [[row[key] for key in columns] for row in rows])


def environment(scores: Scores, records: RunRecords) -> str:
    """List the date, the scorer, and the commit and versions of the runs. Runs that share them are grouped.

    Args:
        scores: Content of scores.json by run.
        records: Content of run.json by run.

    Returns:
        Markdown list.
    """
    first = next(iter(scores.values()))
    scorer = first["normalizer"]
    lines = [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- scored with: normaliser `{scorer['name']}` version {scorer['version']}, jiwer {first['jiwer']}, "
        f"{first['bootstrap']['resamples']} bootstrap resamples, seed {first['bootstrap']['seed']}",
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for run, record in records.items():
        versions = ", ".join(f"{name} {value}" for name, value in sorted((record.get("versions") or {}).items()))
        groups.setdefault((str(record.get("commit") or "not recorded"), versions), []).append(paper_numbers.title(run))
    for (commit, versions), names in groups.items():
        lines.append(f"- {', '.join(names)}: commit `{commit}`, {versions or 'versions not recorded'}")
    return "\n".join([*lines, *_teachers(scores), *_unrecorded(scores)])


def _teachers(scores: Scores) -> list[str]:
    groups: dict[str, list[str]] = {}
    for run, content in scores.items():
        if content.get("teacher"):
            name = "row Teacher" if run == "teacher" else paper_numbers.title(run)
            groups.setdefault(inputs.describe_teacher(content["teacher"]), []).append(name)
    return [f"- teacher ({', '.join(names)}): {teacher}" for teacher, names in groups.items()]


def _unrecorded(scores: Scores) -> list[str]:
    runs = [paper_numbers.title(run) for run, content in scores.items() if not content.get("recorded", True)]
    text = "decoded by an older version of arkasr. Weights and data of the hypotheses are not recorded and not compared"
    return [f"- {', '.join(runs)}: {text}"] if runs else []


def commands(expdir: str, datadir: str, records: RunRecords) -> str:
    """List the recorded commands: the recipe, each training run by its start time, decoding and scoring.

    Args:
        expdir: Experiment directory. All runs that have `run.json` are listed.
        datadir: Data directory.
        records: Content of run.json by run, of the runs that are scored.

    Returns:
        Markdown code block.
    """
    others = {path.parent.name for path in Path(expdir).glob("*/run.json")} - records.keys()
    started = {run: record for run in others if (record := _read_or_skip(expdir, run))}
    runs = sorted((records | started).items(), key=lambda item: str(item[1].get("started", "")))
    recipes = dict.fromkeys(command_without_secrets(record["recipe"]) for _, record in runs if record.get("recipe"))
    lines = ["# recipe", *recipes] if recipes else []
    for run, record in runs:
        command = command_without_secrets(record.get("command") or "")
        when = f"started {record.get('started', '-')}" if command else "no training command recorded"
        lines += [f"# {paper_numbers.title(run)}: {when}", *([command] if command else [])]
    options = shlex.join(["--expdir", str(expdir), "--datadir", str(datadir), "--runs", " ".join(records)])
    lines += ["# decoding and scoring", f"arkasr decode {options}", f"arkasr score {options}"]
    return "```sh\n" + "\n".join(lines) + "\n```"


def _read_or_skip(expdir: str, run: str) -> dict[str, Any] | None:
    """Read the record of a run that is not scored. A damaged one is logged, because it does not concern the results."""
    try:
        return run_records.read_run(expdir, run)
    except UserError as error:
        log(f"warning: {error} (its command is left out of RESULTS.md)")
        return None
