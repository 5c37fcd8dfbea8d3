"""`arkasr score`: count errors and write scores.json of each run, the tables and the figures.

The error rate is the micro average (see `tally`). What makes a rate doubtful is written beside it: clips that were not
decoded, transcripts that do not depend on the audio, cut transcripts, and inputs that changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import (
    bootstrap,
    figures,
    inputs,
    paper_numbers,
    report,
    results_io,
    run_records,
    tables,
    terminal,
)
from arkasr.evaluation.identity import changed_teacher
from arkasr.evaluation.normalize import normalizer
from arkasr.evaluation.set_scores import score_set
from arkasr.evaluation.tally import compare_with_base
from arkasr.utils.console import log, printable
from arkasr.utils.files import locked, write_text
from arkasr.utils.redact import values_without_secrets

BASE, TEACHER = "base", "teacher"


def score_runs(
    expdir: str, datadir: str, records: dict[str, dict[str, Any]], corpus: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Score runs on all test sets of a corpus. If Base is among the runs, the others are compared with it.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        records: Content of run.json by run, with the configuration under "config".
        corpus: Content of corpus.json.

    Returns:
        Content of scores.json by run.

    Raises:
        UserError: References or hypotheses are missing, broken, or do not belong together, or no run has an error rate.
    """
    normalize = normalizer(corpus["normalizer"])
    header = {
        "metric": corpus["metric"],
        "normalizer": {"name": normalize.name, "version": normalize.version},
        "jiwer": version("jiwer"),
        "bootstrap": {"resamples": bootstrap.NUM_RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL},
    }
    scores: dict[str, dict[str, Any]] = {run: {"run": run, **header, "sets": {}} for run in records}
    for test_set in corpus["test_sets"]:
        references = results_io.read_references(datadir, test_set)
        tallies = {}
        for run in records:
            settings = {} if run == TEACHER else records[run]["config"].get("decode") or {}
            tallies[run], scores[run]["sets"][test_set] = score_set(
                expdir, datadir, run, test_set, corpus, references, settings
            )
        base = tallies.get(BASE)
        for run, tally in tallies.items():
            if run != BASE and base is not None and tally is not None:
                scores[run]["sets"][test_set]["against_base"] = compare_with_base(tally, base)
    _require_a_rate(expdir, datadir, scores)
    for run, content in scores.items():
        scores[run] = {**content, **_origin(run, content["sets"], records[run])}
    _compare_teachers(scores)
    return scores


def _require_a_rate(expdir: str, datadir: str, scores: dict[str, dict[str, Any]]) -> None:
    entries = [entry for content in scores.values() for entry in content["sets"].values()]
    if any(entry["rate_percent"] is not None for entry in entries):
        return
    if any(entry["transcripts"] for entry in entries):
        raise UserError(
            f"{datadir}: nothing was scored, because no reference of the test sets has a word; correct the transcripts "
            "and run the recipe from --stage 1"
        )
    raise UserError(f"{expdir}: nothing was scored, because no clip was decoded; see the log of --stage 4, and run it")


def _origin(run: str, sets: dict[str, dict[str, Any]], record: dict[str, Any]) -> dict[str, Any]:
    """Return the teacher and the weights of a run's hypotheses, and the warnings that concern all its test sets."""
    teachers = [entry.pop("teacher") for entry in sets.values()]
    recorded = [entry.pop("recorded") for entry in sets.values()]
    weights = {entry.pop("weights") for entry in sets.values()}
    warnings = inputs.changed_inputs(record)
    teacher = inputs.teacher_of(record)
    if run == TEACHER:
        known = [found for found in teachers if found]
        teacher = known[0] if known else None
        if any(changed_teacher(known[0], other) for other in known[1:]):
            warnings.append("its test sets were decoded with different teachers; run --stage 4 to decode them again")
    return {
        "teacher": values_without_secrets(teacher),
        "weights": weights.pop() if len(weights) == 1 else "",
        "recorded": all(recorded),
        "warnings": warnings,
    }


def _compare_teachers(scores: dict[str, dict[str, Any]]) -> None:
    """Add a warning to distilled runs whose teacher is not the one of the teacher's row."""
    shown = scores.get(TEACHER, {}).get("teacher")
    for run, content in scores.items():
        own = content["teacher"]
        if run != TEACHER and shown and own and (names := changed_teacher(own, shown)):
            content["warnings"].append(
                f"distilled from another teacher ({inputs.describe_teacher(own)}) than the row Teacher "
                f"({inputs.describe_teacher(shown)}); different: {', '.join(names)}"
            )


def _write(path: Path, text: str) -> None:
    write_text(path, text.encode("utf-8", "replace").decode())  # half characters of a damaged text cannot be written


def _display_path(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith("..") else relative


def score(expdir: str, datadir: str, runs: Sequence[str]) -> None:
    """Score decoded runs. Write `<run>/scores.json`, RESULTS.md and figures to `expdir`, and print Table 1.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        runs: Names of the runs, in the order of the tables.

    Raises:
        UserError: No run is named, references or hypotheses are missing, broken, or do not belong together, nothing was
            scored, or another process scores in `expdir`.
    """
    if not runs:
        raise UserError("--runs is empty; name the runs to score, such as --runs 'teacher base base_opd'")
    if not Path(expdir).is_dir():
        raise UserError(f"{expdir}: no such folder; correct --expdir, or run the recipe from --stage 3")
    with locked(Path(expdir), "scoring"):
        _score(expdir, datadir, list(dict.fromkeys(runs)))


def _score(expdir: str, datadir: str, runs: list[str]) -> None:
    corpus = results_io.read_corpus_facts(datadir)
    paper_numbers.columns(corpus)  # an unknown column is an error before anything is written
    records = {run: run_records.read_run(expdir, run) for run in runs}
    metrics = {run: run_records.read_metrics(expdir, run) for run in runs}
    scores = score_runs(expdir, datadir, records, corpus)
    for where, clause in tables.warnings(scores):
        log(f"warning: {where}: {clause}")
    if unrecorded := [run for run, content in scores.items() if not content["recorded"]]:
        log(f"warning: {', '.join(unrecorded)}: decoded by an older version, so weights and data are not compared")
    for run, content in scores.items():
        _write(Path(expdir) / run / "scores.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    drawn = figures.draw(Path(expdir) / "figures", corpus, scores, metrics)
    results = Path(expdir) / "RESULTS.md"
    _write(results, report.results(expdir, datadir, corpus, scores, metrics, records, drawn))
    print("\n".join(map(printable, terminal.table(corpus, scores).split("\n"))))
    print(f"\nResults: {_display_path(results)}")
    for path in drawn:
        print(f"Figure:  {_display_path(path)}")
