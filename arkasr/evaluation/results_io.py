"""Read what scoring needs of datadir and expdir, and say in one sentence what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arkasr.errors import UserError
from arkasr.evaluation.normalize import NORMALIZERS
from arkasr.utils.console import log

METRICS = ("wer", "cer")


def _read_json(path: Path, stage: int) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: run the recipe from --stage {stage}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it and run the recipe from --stage {stage}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: remove it and run the recipe from --stage {stage}")
    return value


def read_corpus_facts(datadir: str | Path) -> dict[str, Any]:
    """Return `corpus.json`; raises UserError where it is missing or broken, or a metric or normaliser is unknown."""
    path = Path(datadir) / "corpus.json"
    corpus = _read_json(path, 1)
    for key in ("name", "metric", "normalizer", "test_sets"):
        if not corpus.get(key):
            raise UserError(f"{path} has no {key!r}: run the recipe from --stage 1")
    if corpus["metric"] not in METRICS:
        raise UserError(f"{path}: metric is {corpus['metric']!r}; choose one of: {', '.join(METRICS)}")
    if corpus["normalizer"] not in NORMALIZERS:
        raise UserError(f"{path}: normalizer is {corpus['normalizer']!r}; choose one of: {', '.join(NORMALIZERS)}")
    return corpus


def read_references(datadir: str | Path, test_set: str) -> dict[str, str]:
    """Return the text of each cut of a test set by its id; raises UserError where there is none to read."""
    path = Path(datadir) / f"{test_set}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path} is missing: prepare the data with --stage 1")
    from lhotse import CutSet

    try:
        cuts = CutSet.from_jsonl_lazy(path)
        texts = {cut.id: " ".join(part.text or "" for part in cut.supervisions) for cut in cuts}
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): remove it and prepare the data with --stage 1") from error
    if not texts:
        raise UserError(f"{path} holds no utterance: see corpus.json beside it for what was dropped, then --stage 1")
    return texts


def _json_lines(path: Path, repair: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}, is not JSON: {repair}") from error
            yield number, row


def read_hypotheses(
    expdir: str | Path, run: str, test_set: str, references: dict[str, str], datadir: str | Path
) -> dict[str, dict[str, Any]]:
    """Return the rows of `<run>/decode/<set>.jsonl` by id; an utterance may be missing there.

    Raises UserError where the file is missing, a row is broken or repeated, or an id is not in the test set.
    """
    path = Path(expdir) / run / "decode" / f"{test_set}.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is missing: decode it with --stage 4")
    rows: dict[str, dict[str, Any]] = {}
    for number, row in _json_lines(path, "remove the file and decode again with --stage 4"):
        missing = [key for key in ("id", "hypothesis", "stopped") if not isinstance(row, dict) or key not in row]
        if missing:
            raise UserError(f"{path}, line {number}, has no {missing[0]!r}: remove it and decode again with --stage 4")
        if row["id"] in rows:
            raise UserError(f"{path}, line {number}: {row['id']} is there twice; remove the file and run --stage 4")
        rows[row["id"]] = row
    strange = next((identity for identity in rows if identity not in references), None)
    if strange is not None:
        raise UserError(
            f"{path} was decoded from other data: its id {strange} is not in {Path(datadir) / test_set}.jsonl.gz; "
            "remove it and decode again with --stage 4, or give the matching --datadir"
        )
    return rows


def read_metrics(expdir: str | Path, run: str) -> list[dict[str, Any]]:
    """Return the training rows of `<run>/metrics.jsonl`, one a step, in order; none where there is no such file.

    A run that was stopped and resumed logs some steps again: the last row of a step counts.
    """
    path = Path(expdir) / run / "metrics.jsonl"
    if not path.is_file():
        return []
    rows = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if "loss" in row:
                    rows[row["step"]] = row
            except (ValueError, KeyError, TypeError):  # a killed run may leave half a line
                log(f"warning: {path}, line {number}, is not a metrics row; left out")
    return [rows[step] for step in sorted(rows)]


def read_run(expdir: str | Path, run: str) -> dict[str, Any]:
    """Return `run.json` of a run with its `config.yaml` under "config"; either may be absent (a given teacher)."""
    folder = Path(expdir) / run
    record = _read_json(folder / "run.json", 3) if (folder / "run.json").is_file() else {}
    config = {}
    if (folder / "config.yaml").is_file():
        try:
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise UserError(f"{folder / 'config.yaml'} is not YAML: run the recipe from --stage 3") from error
    return {**record, "config": config}


def read_scores(expdir: str | Path, run: str) -> dict[str, Any] | None:
    """Return a run's scores.json; None where it was not scored."""
    path = Path(expdir) / run / "scores.json"
    return _read_json(path, 5) if path.is_file() else None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
