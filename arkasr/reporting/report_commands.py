"""The commands of an experiment, as RESULTS.md lists them. They hold no passwords."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from arkasr.evaluation import paper_numbers, run_records
from arkasr.evaluation.results_io import TestSet
from arkasr.reporting.report_facts import RunRecords
from arkasr.reporting.tables import Scores
from arkasr.utils.redact import command_without_secrets


def commands(expdir: str, datadir: str, sets: Sequence[TestSet], scores: Scores, records: RunRecords) -> str:
    """List the recorded commands: the recipe, each training run by its start time, decoding and scoring.

    Args:
        expdir: Experiment directory. All runs that have `run.json` are listed.
        datadir: Data directory.
        sets: The test sets.
        scores: Content of scores.json by run.
        records: Content of run.json by run, of the runs that are scored.

    Returns:
        Markdown code block.
    """
    others = {path.parent.name for path in Path(expdir).glob("*/run.json")} - records.keys()
    started = {run: record for run in others if (record := run_records.read_or_skip(expdir, run))}
    runs = sorted((records | started).items(), key=lambda item: str(item[1].get("started", "")))
    recipes = dict.fromkeys(command_without_secrets(record["recipe"]) for _, record in runs if record.get("recipe"))
    lines = ["# recipe", *recipes] if recipes else []
    for run, record in runs:
        if not run_records.trained_here(run, record):
            continue
        command = command_without_secrets(record.get("command") or "")
        when = f"started {record.get('started', '-')}" if command else "no training command recorded"
        lines += [f"# {paper_numbers.title(run)}: {when}", *([command] if command else [])]
    lines.append("# decoding and scoring")
    for folder, names in _folders(datadir, sets).items():
        options = shlex.join(_options(expdir, folder, names, scores))
        lines += [f"arkasr decode {options}", f"arkasr score {options}"]
    return "```sh\n" + "\n".join(lines) + "\n```"


def _folders(datadir: str, sets: Sequence[TestSet]) -> dict[tuple[str, bool], list[TestSet]]:
    """Group test sets by data directory, and apart from them those that --test_sets named."""
    groups: dict[tuple[str, bool], list[TestSet]] = {}
    for each in sets:
        folder = datadir if each.spec or not each.datadir else each.datadir
        groups.setdefault((folder, bool(each.spec)), []).append(each)
    return groups


def _options(expdir: str, group: tuple[str, bool], names: Sequence[TestSet], scores: Scores) -> list[str]:
    rows = {run: content for run, content in scores.items() if any(each.name in content["sets"] for each in names)}
    runs = [run for run, content in rows.items() if not content.get("checkpoint")]
    options = ["--expdir", str(expdir), "--datadir", group[0], *(["--runs", " ".join(runs)] if runs else [])]
    models = [
        checkpoint_value(run, content["checkpoint"]) for run, content in rows.items() if content.get("checkpoint")
    ]
    options += ["--checkpoint", *models] if models else []
    return options + (["--test_sets", *dict.fromkeys(each.spec for each in names)] if group[1] else [])


def checkpoint_value(run: str, facts: dict[str, str]) -> str:
    """Return the value of --checkpoint of one row.

    Args:
        run: Name of the row.
        facts: Its facts in scores.json (see `arkasr.evaluation.checkpoint_values`).

    Returns:
        The value, `NAME=MODEL`.
    """
    return f"{run}={facts['plugin']}:{facts['path']}" if facts.get("plugin") else f"{run}={facts['path']}"
