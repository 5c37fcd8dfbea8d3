"""RESULTS.md: the tables with what one must know to read and to repeat them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arkasr.evaluation import paper_numbers, results_io, tables
from arkasr.evaluation.tables import Scores, markdown, number

Metrics = dict[str, list[dict[str, Any]]]
Facts = dict[str, dict[str, Any]]

# Settings of a run that are shown where its config has them; the last two mean something for distillation only.
SETTINGS = {
    "seed": "seed",
    "steps": "train.steps",
    "peak learning rate": "optim.lr",
    "top-k": "distill.top_k",
    "temperature": "loss.options.temperature",
}
OPD_SETTINGS = ("top-k", "temperature")

MINI = """\
**Miniature.** Small models, little data and small test sets, through the same recipe as at the paper's scale. Its
error rates are not comparable to the paper's; the columns marked `paper` are there to compare the pattern."""
PAPER_SCALE = """\
The columns marked `paper` hold the paper's own numbers; the normaliser behind them is not published in full."""
READING = """\
Error rates in percent, lower is better: all errors of a test set over all its reference {units}. The brackets hold a
95 % bootstrap interval over the utterances of the test set; it does not cover how a run varies with its seed."""
CHANGE = """\
Relative change of the error rate, and in parentheses the difference in points with its paired 95 % bootstrap interval
(both runs on the same drawn utterances). An interval without 0 speaks for a true difference on speech like this.
Gap recovery: the share of Base's distance to the teacher that a run closed."""
VUSS = """\
Valid union support size: how many valid tokens the union of the teacher's and the student's top k holds, at most 2k;
smaller means more overlap. A logged step gives the mean over its positions; mean, min and max are over these."""
COUNTS = """\
Percentages of the reference {units} ({unit}); S.Err: utterances (Snt) with an error. Missing: utterances without
hypothesis, counted as deletions. Empty: nothing recognised. Cut off: no stop token within the token limit.
Looping: the transcript ends in a pattern of at most 24 tokens, said four times or more.
Utterances with an empty reference: {empty}; what is recognised in them counts as insertions."""


def _setting(config: Any, path: str) -> str:
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return "-" if config is None else str(config)


def corpus_facts(corpus: dict) -> str:
    """Return cuts, hours and speakers of each set, and what preparation dropped and why."""
    rows = []
    for name, facts in (corpus.get("sets") or {}).items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted((facts.get("dropped") or {}).items()))
        cells = [str(facts.get("cuts", "-")), number(facts.get("hours"), 3), str(facts.get("speakers") or "-")]
        rows.append([name, *cells, dropped or "none"])
    return markdown(["Set", "Cuts", "Hours", "Speakers", "Dropped"], rows)


def training_facts(metrics: Metrics, facts: Facts) -> str:
    """Return how far each run was trained, and the settings its config names; a column nobody fills is left out."""
    rows = []
    for run, record in facts.items():
        steps = metrics.get(run) or []
        distilled = any("vuss" in row for row in steps)
        row = {"run": paper_numbers.title(run), "last logged step": str(steps[-1]["step"]) if steps else "-"}
        for name, path in SETTINGS.items():
            row[name] = _setting(record.get("config"), path) if distilled or name not in OPD_SETTINGS else "-"
        rows.append(row)
    columns = [key for key in rows[0] if any(row[key] != "-" for row in rows)]
    return markdown([key.capitalize() for key in columns], [[row[key] for key in columns] for row in rows])


def environment(scores: Scores, facts: Facts) -> str:
    """Return date and scorer and, for each group of runs that share them, commit and versions."""
    first = next(iter(scores.values()))
    scorer = first["normalizer"]
    lines = [
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- scored with: normaliser `{scorer['name']}` version {scorer['version']}, jiwer {first['jiwer']}, "
        f"{first['bootstrap']['resamples']} bootstrap resamples, seed {first['bootstrap']['seed']}",
    ]
    groups: dict[tuple[str, str], list[str]] = {}
    for run, record in facts.items():
        versions = ", ".join(f"{name} {value}" for name, value in sorted((record.get("versions") or {}).items()))
        groups.setdefault((str(record.get("commit") or "not recorded"), versions), []).append(paper_numbers.title(run))
    for (commit, versions), names in groups.items():
        lines.append(f"- {', '.join(names)}: commit `{commit}`; {versions or 'versions not recorded'}")
    return "\n".join(lines)


def commands(expdir: str, datadir: str, facts: Facts) -> str:
    """Return the recipe's command where one was recorded, each run's own by its start, and scoring's."""
    started = {
        path.parent.name: results_io.read_run(expdir, path.parent.name) for path in Path(expdir).glob("*/run.json")
    }
    runs = sorted((facts | started).items(), key=lambda item: str(item[1].get("started", "")))
    recipes = dict.fromkeys(record["recipe"] for _, record in runs if record.get("recipe"))
    lines = ["# the recipe", *recipes] if recipes else []
    for run, record in runs:
        command = record.get("command")
        when = f"started {record.get('started', '-')}" if command else "no training command recorded"
        lines += [f"# {paper_numbers.title(run)}: {when}", *([command] if command else [])]
    where = shlex.join(["--expdir", str(expdir), "--datadir", str(datadir), "--runs", " ".join(facts)])
    lines += ["# transcripts and scores", f"arkasr decode {where}", f"arkasr score {where}"]
    return "```sh\n" + "\n".join(lines) + "\n```"


def _figures(expdir: str, drawn: Sequence[Path]) -> str:
    return "\n\n".join(f"![{path.stem.replace('_', ' ')}]({os.path.relpath(path, expdir)})" for path in drawn)


def results(
    expdir: str, datadir: str, corpus: dict, scores: Scores, metrics: Metrics, facts: Facts, drawn: Sequence[Path]
) -> str:
    """Return the whole RESULTS.md.

    scores: the content of each run's scores.json; metrics: its training rows; facts: its run.json with "config";
    drawn: the figures, under expdir.
    """
    mini = corpus.get("scale") != "paper"
    unit, units = ("Wrd", "words") if corpus["metric"] == "wer" else ("Chr", "characters")
    empty = next(iter(scores.values()))["sets"]
    empties = ", ".join(f"{name} {got['empty_references']}" for name, got in empty.items())
    change = tables.changes(corpus, scores)
    top_k = {run: _setting(record.get("config"), SETTINGS["top-k"]) for run, record in facts.items()}
    sections = [
        (f"# Results: {corpus['name']}{', miniature' if mini else ''}", MINI if mini else PAPER_SCALE),
        ("## Environment", environment(scores, facts)),
        ("## Table 1: error rates", READING.format(units=units), tables.error_rates(corpus, scores)),
        ("### Change from Base", CHANGE, change) if change else (),
        ("## Table 2: VUSS during distillation", VUSS, tables.vuss(metrics, top_k)),
        ("## Figures", _figures(expdir, drawn)),
        ("## Counts", COUNTS.format(units=units, unit=unit, empty=empties), tables.counts(corpus, scores)),
        ("## Corpus", corpus_facts(corpus)) if corpus.get("sets") else (),
        ("## Runs", training_facts(metrics, facts), commands(expdir, datadir, facts)),
    ]
    return "\n\n".join(part for section in sections for part in section) + "\n"
