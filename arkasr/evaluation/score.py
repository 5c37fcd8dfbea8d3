"""Count errors, and write each run's scores.json, the tables and the figures.

Errors are counted by jiwer on text that passed the corpus's normaliser, summed over all utterances and then divided
by all reference words or characters (micro average). An utterance without hypothesis is all deletions; what is
recognised where the reference is empty is all insertions.
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

BASE = "base"


@dataclass(frozen=True)
class Tally:
    """Alignment counts of one run on one test set: int64 arrays [N], an entry an utterance."""

    hits: np.ndarray
    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def lengths(self) -> np.ndarray:
        return self.hits + self.substitutions + self.deletions


def count(references: Sequence[str], hypotheses: Sequence[str], metric: str) -> Tally:
    """Align N normalised hypotheses with their references, by words for "wer" and by characters for "cer"."""
    import jiwer

    process = jiwer.process_words if metric == "wer" else jiwer.process_characters
    alignments = process(list(references), list(hypotheses)).alignments
    counts = {kind: np.zeros(len(references), dtype=np.int64) for kind in ("equal", "substitute", "delete", "insert")}
    for index, chunks in enumerate(alignments):
        for chunk in chunks:
            # An insertion has no extent in the reference, a deletion none in the hypothesis.
            extent = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            counts[chunk.type][index] += extent
    return Tally(*counts.values())


def percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def _percents(pair: tuple[float, float] | None) -> list[float | None] | None:
    return None if pair is None else [percent(value) for value in pair]


def summary(tally: Tally) -> dict[str, Any]:
    """Return the totals of a tally, its rate and 95 % interval in percent (null where every reference is empty)."""
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
        "rate_percent": percent(errors / length) if length else None,
        "interval_percent": _percents(bootstrap.interval(tally.errors, tally.lengths)),
    }


def against(tally: Tally, base: Tally) -> dict[str, Any]:
    """Return the change of a run's rate from Base's on the same test set: points, their paired interval, relative."""
    length, errors, others = int(tally.lengths.sum()), int(tally.errors.sum()), int(base.errors.sum())
    return {
        "difference_percent": percent((errors - others) / length) if length else None,
        "interval_percent": _percents(bootstrap.paired_interval(tally.errors, base.errors, tally.lengths)),
        "relative_percent": percent(errors / others - 1) if others else None,
    }


def _same_text(references: dict[str, str], rows: dict[str, dict], normalize: Normalizer, where: tuple) -> None:
    """Refuse hypotheses whose own copy of the reference reads otherwise: same ids, other recordings."""
    expdir, run, test_set, datadir = where
    for identity, row in rows.items():
        if "reference" in row and normalize(row["reference"]) != normalize(references[identity]):
            raise UserError(
                f"{expdir}/{run}/decode/{test_set}.jsonl was decoded from other data: its reference of {identity} is "
                f"not the text in {datadir}/{test_set}.jsonl.gz; remove it and decode again with --stage 4"
            )


def _score_set(
    expdir: str, datadir: str, run: str, test_set: str, corpus: dict, references: dict[str, str]
) -> tuple[Tally, dict[str, Any]]:
    """Return the tally of one run on one test set, and its summary."""
    normalize = normalizer(corpus["normalizer"])
    rows = results_io.read_hypotheses(expdir, run, test_set, references, datadir)
    _same_text(references, rows, normalize, (expdir, run, test_set, datadir))
    missing = [identity for identity in references if identity not in rows]
    if missing:
        log(
            f"warning: {run}, {test_set}: {len(missing)} of {len(references)} utterances have no hypothesis "
            f"(the first: {missing[0]}); every word of theirs counts as deleted"
        )
    hypotheses = [normalize(rows[identity]["hypothesis"]) if identity in rows else "" for identity in references]
    tally = count([normalize(text) for text in references.values()], hypotheses, corpus["metric"])
    stopped = [row["stopped"] for row in rows.values()]  # None: the decoder does not know
    looping = [row.get("looping") for row in rows.values()]
    return tally, {
        **summary(tally),
        "missing_hypotheses": len(missing),
        "empty_hypotheses": hypotheses.count("") - len(missing),
        "not_stopped": None if None in stopped else stopped.count(False),
        "looping": None if None in looping else looping.count(True),
    }


def score_runs(expdir: str, datadir: str, runs: Sequence[str], corpus: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each run's scores.json holds; Base's numbers are compared with where it is among the runs."""
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
                scores[run]["sets"][test_set]["against_base"] = against(tallies[run], tallies[BASE])
    return scores


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith("..") else relative


def score(expdir: str, datadir: str, runs: list[str]) -> None:
    """Score decoded runs: write `<run>/scores.json`, RESULTS.md and figures under expdir, and print Table 1.

    RESULTS.md shows the runs named here, in that order. Raises UserError where data or hypotheses are missing,
    broken, or do not belong together.
    """
    if not runs:
        raise UserError("no run to score: name some, such as --runs 'teacher base base_opd'")
    runs = list(dict.fromkeys(runs))
    corpus = results_io.read_corpus_facts(datadir)
    scores = score_runs(expdir, datadir, runs, corpus)
    for run, content in scores.items():
        results_io.write_text(
            Path(expdir) / run / "scores.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        )
    metrics = {run: results_io.read_metrics(expdir, run) for run in runs}
    drawn = figures.draw(Path(expdir) / "figures", corpus, scores, metrics)
    facts = {run: results_io.read_run(expdir, run) for run in runs}
    results = Path(expdir) / "RESULTS.md"
    results_io.write_text(results, report.results(expdir, datadir, corpus, scores, metrics, facts, drawn))
    print(tables.terminal(corpus, scores))
    print(f"\nResults: {_shown(results)}")
    for path in drawn:
        print(f"Figure:  {_shown(path)}")
