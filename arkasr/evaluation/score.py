"""`arkasr score`: count errors and write scores.json of each run, the tables and the figures.

jiwer counts the errors on normalised text. The error rate is the micro average: the errors of all utterances divided
by the number of all reference words or characters. An utterance without a hypothesis counts as deletions. Words
recognised in an utterance with an empty reference count as insertions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import bootstrap, figures, report, results_io, run_records, tables
from arkasr.evaluation.normalize import Normalizer, normalizer
from arkasr.evaluation.tally import Tally, compare_with_base, count, summary
from arkasr.utils.console import log
from arkasr.utils.files import write_text

BASE = "base"


def _check_references(
    references: dict[str, str], rows: dict[str, dict], normalize: Normalizer, hypotheses: str, manifest: str
) -> None:
    """Raise UserError if a hypothesis row holds another reference: the ids are equal, but the data is not."""
    for identity, row in rows.items():
        if "reference" in row and normalize(row["reference"]) != normalize(references[identity]):
            raise UserError(
                f"{hypotheses}: decoded from other data (the reference of {identity} differs from the text in "
                f"{manifest}); delete the file and decode again with --stage 4"
            )


def _score_set(
    expdir: str, datadir: str, run: str, test_set: str, corpus: dict, references: dict[str, str]
) -> tuple[Tally, dict[str, Any]]:
    """Return the counts of one run on one test set, and the entry for scores.json."""
    normalize = normalizer(corpus["normalizer"])
    rows = results_io.read_hypotheses(expdir, run, test_set, references, datadir)
    hypothesis_file, manifest = f"{expdir}/{run}/decode/{test_set}.jsonl", f"{datadir}/{test_set}.jsonl.gz"
    _check_references(references, rows, normalize, hypothesis_file, manifest)
    missing = [identity for identity in references if identity not in rows]
    if missing:
        log(
            f"warning: {run}, {test_set}: {len(missing)} of {len(references)} utterances have no hypothesis "
            f"(first: {missing[0]}); their words count as deletions"
        )
    hypotheses = [normalize(rows[identity]["hypothesis"]) if identity in rows else "" for identity in references]
    tally = count([normalize(text) for text in references.values()], hypotheses, corpus["metric"])
    stopped = [row["stopped"] for row in rows.values()]  # None: not reported by the decoder
    looping = [row.get("looping") for row in rows.values()]
    return tally, {
        **summary(tally),
        "missing_hypotheses": len(missing),
        "empty_hypotheses": hypotheses.count("") - len(missing),
        "not_stopped": None if None in stopped else stopped.count(False),
        "looping": None if None in looping else looping.count(True),
    }


def score_runs(expdir: str, datadir: str, runs: Sequence[str], corpus: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Score runs on all test sets of a corpus. If Base is among the runs, the others are compared with it.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        runs: Names of the runs.
        corpus: Content of corpus.json.

    Returns:
        Content of scores.json by run.

    Raises:
        UserError: References or hypotheses are missing, broken, or do not belong together.
    """
    normalize = normalizer(corpus["normalizer"])
    header = {
        "metric": corpus["metric"],
        "normalizer": {"name": normalize.name, "version": normalize.version},
        "jiwer": version("jiwer"),
        "bootstrap": {"resamples": bootstrap.NUM_RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL},
    }
    scores: dict[str, dict[str, Any]] = {run: {"run": run, **header, "sets": {}} for run in runs}
    for test_set in corpus["test_sets"]:
        references = results_io.read_references(datadir, test_set)
        tallies = {}
        for run in runs:
            tallies[run], scores[run]["sets"][test_set] = _score_set(expdir, datadir, run, test_set, corpus, references)
        for run in runs if BASE in runs else ():
            if run != BASE:
                scores[run]["sets"][test_set]["against_base"] = compare_with_base(tallies[run], tallies[BASE])
    return scores


def _display_path(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith("..") else relative


def score(expdir: str, datadir: str, runs: list[str]) -> None:
    """Score decoded runs. Write `<run>/scores.json`, RESULTS.md and figures to `expdir`, and print Table 1.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        runs: Names of the runs, in the order of the tables.

    Raises:
        UserError: No run is named, or references or hypotheses are missing, broken, or do not belong together.
    """
    if not runs:
        raise UserError("--runs is empty; name the runs to score, such as --runs 'teacher base base_opd'")
    runs = list(dict.fromkeys(runs))
    corpus = results_io.read_corpus_facts(datadir)
    scores = score_runs(expdir, datadir, runs, corpus)
    for run, content in scores.items():
        write_text(Path(expdir) / run / "scores.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    metrics = {run: run_records.read_metrics(expdir, run) for run in runs}
    drawn = figures.draw(Path(expdir) / "figures", corpus, scores, metrics)
    records = {run: run_records.read_run(expdir, run) for run in runs}
    results = Path(expdir) / "RESULTS.md"
    write_text(results, report.results(expdir, datadir, corpus, scores, metrics, records, drawn))
    print(tables.terminal(corpus, scores))
    print(f"\nResults: {_display_path(results)}")
    for path in drawn:
        print(f"Figure:  {_display_path(path)}")
