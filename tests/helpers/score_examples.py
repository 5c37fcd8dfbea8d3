"""Scores, metrics and records of an imagined experiment, and the rows of a Markdown table."""

from __future__ import annotations

from arkasr.evaluation.results_io import test_set

CORPUS = {
    "name": "librispeech",
    "profiles": ["unicode"],
    "scale": "mini",
    "test_sets": ["test-clean", "test-other"],
    "paper": {"test-clean": "Libri clean", "test-other": "Libri Other"},
    "sets": {"train": {"cuts": 7, "hours": 0.5, "speakers": 2, "dropped": {"no text": 3, "empty audio": 1}}},
}


def sets_of(**changes):
    corpus = {**CORPUS, **changes}
    return [test_set(corpus, name, "data") for name in corpus["test_sets"]]


SETS = sets_of()
UNICODE = {"name": "unicode", "version": "1", "packages": {}}


def set_scores(rate, relative=None, interval=(-6.0, 1.5)):
    entry = {
        "metric": "wer",
        "profile": UNICODE,
        "utterances": 10,
        "reference_length": 200,
        "hits": 150,
        "substitutions": 30,
        "deletions": 20,
        "insertions": 4,
        "errors": 54,
        "utterances_with_errors": 9,
        "empty_references": 0,
        "transcripts": 8,
        "missing_hypotheses": 2,
        "empty_hypotheses": 1,
        "not_stopped": 3,
        "looping": None,
        "distinct_hypotheses": 6,
        "most_frequent_hypothesis": {"text": "a", "count": 2},
        "warnings": [],
        "rate_percent": rate,
        "interval_percent": None if rate is None else [rate - 1, rate + 2],
    }
    if relative is not None:
        change = {"difference_percent": -5.0, "interval_percent": list(interval), "relative_percent": relative}
        entry["against_base"] = change
    return entry


def run_scores(rate, relative=None, interval=(-6.0, 1.5)):
    header = {"jiwer": "4.0.0", "bootstrap": {"resamples": 1000, "seed": 0, "level": 0.95}}
    return {**header, "sets": {name: set_scores(rate, relative, interval) for name in CORPUS["test_sets"]}}


TEACHER = {"name": "qwen3_asr", "options": {}, "path": "/models/Qwen3-ASR-1.7B", "weights": "0123456789abcdef" * 4}
SCORES = {
    "teacher": {**run_scores(5, -87.5, (-38.0, -32.0)), "teacher": TEACHER},
    "base": run_scores(40),
    "base_opd": run_scores(20, -50),
}
METRICS = {
    "teacher": [],
    "base": [{"step": 10, "loss": 2.0}],
    "base_opd": [{"step": i, "loss": 1.0, "vuss": v} for i, v in enumerate([20.0, 23.0, 26.0, 0.0], 1)],
}


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
