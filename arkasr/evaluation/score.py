"""`arkasr score`: count errors and write scores.json of each run, the tables and the figures.

jiwer counts the errors on normalised text. The error rate is the micro average: the errors of all utterances divided
by the number of all reference words or characters. An utterance without a hypothesis counts as deletions. Words
recognised in an utterance with an empty reference count as insertions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from arkasr.errors import UserError
from arkasr.evaluation import bootstrap, figures, report, results_io, tables
from arkasr.evaluation.normalize import Normalizer, normalizer
from arkasr.utils.console import log
from arkasr.utils.files import write_text

BASE = "base"


@dataclass(frozen=True)
class Tally:
    """Alignment counts of one run on the N utterances of one test set: int64 arrays [N]."""

    hits: np.ndarray
    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Number of errors per utterance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def lengths(self) -> np.ndarray:
        """Reference length per utterance."""
        return self.hits + self.substitutions + self.deletions


def count(references: Sequence[str], hypotheses: Sequence[str], metric: str) -> Tally:
    """Align hypotheses with references and count the edit operations.

    Args:
        references: N normalised references.
        hypotheses: N normalised hypotheses.
        metric: "wer" to align words, "cer" to align characters.

    Returns:
        Counts per utterance.
    """
    import jiwer

    process = jiwer.process_words if metric == "wer" else jiwer.process_characters
    alignments = process(list(references), list(hypotheses)).alignments
    counts = {kind: np.zeros(len(references), dtype=np.int64) for kind in ("equal", "substitute", "delete", "insert")}
    for index, chunks in enumerate(alignments):
        for chunk in chunks:
            # The reference extent of an insertion is 0, and so is the hypothesis extent of a deletion.
            extent = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            counts[chunk.type][index] += extent
    return Tally(*counts.values())


def _percent(value: float) -> float:
    return round(100 * value, 4)


def _percents(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else [_percent(value) for value in pair]


def summary(tally: Tally) -> dict[str, Any]:
    """Sum the counts of one run on one test set, and compute its error rate with a 95 % interval.

    Args:
        tally: Counts per utterance.

    Returns:
        Totals, `rate_percent` and `interval_percent`. Both are None if all references are empty.
    """
    length, errors = int(tally.lengths.sum()), int(tally.errors.sum())
    return {
        "utterances": len(tally.hits),
        "reference_length": length,
        "hits": int(tally.hits.sum()),
        "substitutions": int(tally.substitutions.sum()),
        "deletions": int(tally.deletions.sum()),
        "insertions": int(tally.insertions.sum()),
        "errors": errors,
        "utterances_with_errors": int((tally.errors > 0).sum()),
        "empty_references": int((tally.lengths == 0).sum()),
        "rate_percent": _percent(errors / length) if length else None,
        "interval_percent": _percents(bootstrap.interval(tally.errors, tally.lengths)),
    }


def compare_with_base(tally: Tally, base: Tally) -> dict[str, Any]:
    """Compute the change of a run's error rate from Base on the same test set.

    Args:
        tally: Counts of the run per utterance.
        base: Counts of Base, for the same utterances in the same order.

    Returns:
        `difference_percent` in points, its paired 95 % interval `interval_percent`, and `relative_percent`. Values that
        are not defined are None.
    """
    length, errors, base_errors = int(tally.lengths.sum()), int(tally.errors.sum()), int(base.errors.sum())
    return {
        "difference_percent": _percent((errors - base_errors) / length) if length else None,
        "interval_percent": _percents(bootstrap.paired_interval(tally.errors, base.errors, tally.lengths)),
        "relative_percent": _percent(errors / base_errors - 1) if base_errors else None,
    }


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
    metrics = {run: results_io.read_metrics(expdir, run) for run in runs}
    drawn = figures.draw(Path(expdir) / "figures", corpus, scores, metrics)
    records = {run: results_io.read_run(expdir, run) for run in runs}
    results = Path(expdir) / "RESULTS.md"
    write_text(results, report.results(expdir, datadir, corpus, scores, metrics, records, drawn))
    print(tables.terminal(corpus, scores))
    print(f"\nResults: {_display_path(results)}")
    for path in drawn:
        print(f"Figure:  {_display_path(path)}")
