"""Read and check the files of a data directory and an experiment directory that scoring and export need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from arkasr.errors import UserError
from arkasr.evaluation.normalize import NORMALIZERS
from arkasr.utils.console import log
from arkasr.utils.files import read_json

METRICS = ("wer", "cer")


def _read_json(path: Path, stage: int) -> dict[str, Any]:
    if not path.is_file():
        return read_json(path, f"run the recipe from --stage {stage}")
    return read_json(path, f"delete it and run the recipe from --stage {stage}")


def read_corpus_facts(datadir: str | Path) -> dict[str, Any]:
    """Read `corpus.json`.

    Args:
        datadir: Prepared data directory.

    Returns:
        Its content. `name`, `metric`, `normalizer` and `test_sets` are not empty.

    Raises:
        UserError: The file is missing or broken, or the metric or normaliser is unknown.
    """
    path = Path(datadir) / "corpus.json"
    corpus = _read_json(path, 1)
    for key in ("name", "metric", "normalizer", "test_sets"):
        if not corpus.get(key):
            raise UserError(f"{path}: key {key!r} is missing; delete the file and run the recipe from --stage 1")
    if corpus["metric"] not in METRICS:
        raise UserError(
            f"{path}: unknown metric {corpus['metric']!r}; correct it in corpus.yaml (one of: {', '.join(METRICS)}) "
            "and run the recipe from --stage 1"
        )
    if corpus["normalizer"] not in NORMALIZERS:
        raise UserError(
            f"{path}: unknown normalizer {corpus['normalizer']!r}; correct it in corpus.yaml (one of: "
            f"{', '.join(NORMALIZERS)}) and run the recipe from --stage 1"
        )
    return corpus


def read_references(datadir: str | Path, test_set: str) -> dict[str, str]:
    """Read the reference texts of a test set.

    Args:
        datadir: Prepared data directory.
        test_set: Name of the test set.

    Returns:
        Reference text by cut id, in the order of the manifest.

    Raises:
        UserError: The manifest is missing, broken or empty.
    """
    path = Path(datadir) / f"{test_set}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path}: no such file; prepare the data with --stage 1")
    from lhotse import CutSet

    try:
        cuts = CutSet.from_jsonl_lazy(path)
        texts = {cut.id: " ".join(part.text or "" for part in cut.supervisions) for cut in cuts}
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it and prepare the data with --stage 1") from error
    if not texts:
        raise UserError(f"{path}: contains no utterances; see what corpus.json lists as dropped, then run --stage 1")
    return texts


def _json_lines(path: Path, repair: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not valid JSON; {repair}") from error
            yield number, row


def read_hypotheses(
    expdir: str | Path, run: str, test_set: str, references: dict[str, str], datadir: str | Path
) -> dict[str, dict[str, Any]]:
    """Read `<expdir>/<run>/decode/<test_set>.jsonl`.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        test_set: Name of the test set.
        references: Reference text by id. Utterances without a hypothesis are allowed.
        datadir: Data directory of the references, for error messages.

    Returns:
        Hypothesis rows by id.

    Raises:
        UserError: The file is missing, some row is broken or repeated, or an id is not in the test set.
    """
    path = Path(expdir) / run / "decode" / f"{test_set}.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file; decode it with --stage 4")
    rows: dict[str, dict[str, Any]] = {}
    for number, row in _json_lines(path, "delete the file and decode again with --stage 4"):
        missing = [key for key in ("id", "hypothesis", "stopped") if not isinstance(row, dict) or key not in row]
        if missing:
            raise UserError(
                f"{path}, line {number}: key {missing[0]!r} is missing; delete the file and decode again with --stage 4"
            )
        if row["id"] in rows:
            raise UserError(f"{path}, line {number}: duplicate id {row['id']}; delete the file and run --stage 4")
        rows[row["id"]] = row
    unknown = next((identity for identity in rows if identity not in references), None)
    if unknown is not None:
        raise UserError(
            f"{path}: decoded from other data (id {unknown} is not in {Path(datadir) / test_set}.jsonl.gz); "
            "delete the file and decode again with --stage 4, or set the matching --datadir"
        )
    return rows


def read_metrics(expdir: str | Path, run: str) -> list[dict[str, Any]]:
    """Read the training rows of `<expdir>/<run>/metrics.jsonl`.

    A resumed run logs some steps again. The last row of each step is used. Broken lines are logged and skipped.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        One row per logged step, in the order of steps. Empty if there is no such file.
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
            except (ValueError, KeyError, TypeError):  # a killed run may leave an incomplete line
                log(f"warning: {path}, line {number}: not a metrics row, skipped")
    return [rows[step] for step in sorted(rows)]


def read_run(expdir: str | Path, run: str) -> dict[str, Any]:
    """Read the record of a training run.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        Content of `run.json`, with the content of `config.yaml` under "config". Missing files count as empty, because
        a pretrained teacher has neither.

    Raises:
        UserError: One of the files is broken.
    """
    folder = Path(expdir) / run
    record = _read_json(folder / "run.json", 3) if (folder / "run.json").is_file() else {}
    config: dict[str, Any] = {}
    if (folder / "config.yaml").is_file():
        try:
            config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise UserError(f"{folder / 'config.yaml'}: not valid YAML; delete it and run --stage 3") from error
    return {**record, "config": config}


def read_scores(expdir: str | Path, run: str) -> dict[str, Any] | None:
    """Read the scores.json of one run.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        Its content, or None if the run was not scored.

    Raises:
        UserError: The file is broken.
    """
    path = Path(expdir) / run / "scores.json"
    return _read_json(path, 5) if path.is_file() else None
