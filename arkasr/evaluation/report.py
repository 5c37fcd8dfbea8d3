"""RESULTS.md: the tables of results, with what is needed to read and to reproduce them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arkasr.evaluation import paper_numbers, run_records, tables
from arkasr.evaluation.tables import Scores, format_number, markdown_table

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

MINI = """\
**Miniature scale.** Small models, little data and small test sets, with the same recipe as at paper scale. The error
rates are not comparable to the paper's. The columns marked `paper` are shown to compare the pattern."""
PAPER_SCALE = """\
The columns marked `paper` hold the paper's published numbers. The paper does not fully describe its normaliser."""
READING = """\
Error rates in percent (lower is better): all errors of a test set divided by all its reference {units}. Brackets hold
the 95 % bootstrap interval over the utterances of the test set. It does not include variation between seeds."""
CHANGE = """\
Relative change of the error rate. In parentheses: the difference in points with its paired 95 % bootstrap interval
(both runs on the same resampled utterances). An interval that excludes 0 indicates a real difference on such speech.
Gap recovery: the share of the gap between Base and the teacher that the run closed."""
VUSS = """\
Valid union support size: the number of valid tokens in the union of the teacher's and the student's top k, at most 2k.
Smaller means more overlap. Each logged step is the mean over its positions. Mean, min and max are over the steps."""
COUNTS = """\
Corr to Err: percentages of the reference {units} ({unit}). S.Err: percentage of utterances (Snt) with an error.
Missing: utterances without a hypothesis, counted as deletions. Empty: empty hypotheses. Cut off: no stop token within
the token cap. Looping: the transcript ends in a pattern of at most 24 tokens that is repeated four times or more.
Utterances with an empty reference: {empty}. What is recognised in them counts as insertions."""


def _setting(config: Any, path: str) -> str:
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
            row[name] = _setting(record.get("config"), path) if distilled or name not in OPD_SETTINGS else "-"
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
    return "\n".join(lines)


def commands(expdir: str, datadir: str, records: RunRecords) -> str:
    """List the recorded commands: the recipe, each training run by its start time, decoding and scoring.

    Args:
        expdir: Experiment directory. All runs that have `run.json` are listed.
        datadir: Data directory.
        records: Content of run.json by run, of the runs that are scored.

    Returns:
        Markdown code block.
    """
    started = {
        path.parent.name: run_records.read_run(expdir, path.parent.name) for path in Path(expdir).glob("*/run.json")
    }
    runs = sorted((records | started).items(), key=lambda item: str(item[1].get("started", "")))
    recipes = dict.fromkeys(record["recipe"] for _, record in runs if record.get("recipe"))
    lines = ["# recipe", *recipes] if recipes else []
    for run, record in runs:
        command = record.get("command")
        when = f"started {record.get('started', '-')}" if command else "no training command recorded"
        lines += [f"# {paper_numbers.title(run)}: {when}", *([command] if command else [])]
    options = shlex.join(["--expdir", str(expdir), "--datadir", str(datadir), "--runs", " ".join(records)])
    lines += ["# decoding and scoring", f"arkasr decode {options}", f"arkasr score {options}"]
    return "```sh\n" + "\n".join(lines) + "\n```"


def _figures(expdir: str, drawn: Sequence[Path]) -> str:
    return "\n\n".join(f"![{path.stem.replace('_', ' ')}]({os.path.relpath(path, expdir)})" for path in drawn)


def results(
    expdir: str,
    datadir: str,
    corpus: dict,
    scores: Scores,
    metrics: Metrics,
    records: RunRecords,
    drawn: Sequence[Path],
) -> str:
    """Build the whole RESULTS.md.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        corpus: Content of corpus.json.
        scores: Content of scores.json by run.
        metrics: Training rows by run.
        records: Content of run.json by run, with the configuration under "config".
        drawn: Paths of the figures, in `expdir`.

    Returns:
        The Markdown text.
    """
    mini = corpus.get("scale") != "paper"
    unit, units = ("Wrd", "words") if corpus["metric"] == "wer" else ("Chr", "characters")
    sets = next(iter(scores.values()))["sets"]
    empty = ", ".join(f"{name} {summary['empty_references']}" for name, summary in sets.items())
    change = tables.changes(corpus, scores)
    top_k = {run: _setting(record.get("config"), SETTINGS["top-k"]) for run, record in records.items()}
    sections = [
        (f"# Results: {corpus['name']}{', miniature' if mini else ''}", MINI if mini else PAPER_SCALE),
        ("## Environment", environment(scores, records)),
        ("## Table 1: error rates", READING.format(units=units), tables.error_rates(corpus, scores)),
        ("### Change from Base", CHANGE, change) if change else (),
        ("## Table 2: VUSS during distillation", VUSS, tables.vuss(metrics, top_k)),
        ("## Figures", _figures(expdir, drawn)),
        ("## Counts", COUNTS.format(units=units, unit=unit, empty=empty), tables.counts(corpus, scores)),
        ("## Corpus", corpus_facts(corpus)) if corpus.get("sets") else (),
        ("## Runs", training_facts(metrics, records), commands(expdir, datadir, records)),
    ]
    return "\n\n".join(part for section in sections for part in section) + "\n"
