"""Read and check corpus.json, and how its test sets are scored. Types of the record of decoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation.checks import check_types
from arkasr.scoring.normalize import NORMALIZERS
from arkasr.utils.files import read_json

METRICS = ("wer", "cer")
SET_NAME = re.compile(r"[^/\\\x00-\x1f]*[^/\\\x00-\x1f.][^/\\\x00-\x1f]*")  # names a file in the data directory
CORPUS_TYPES = {
    "name": str,
    "metric": str,
    "normalizer": str,
    "test_sets": list,
    "language": str,
    "scale": str,
    "dev": str,
    "corpus_dir": str,
    "paper": dict,
    "sets": dict,
}
SET_TYPES = {
    "cuts": int,
    "hours": float,
    "speakers": int,
    "dropped": dict,
    "untranscribed": int,
    "metric": str,
    "normalizer": str,
    "language": str,
    "corpus": str,
    "manifest": str,
    "scale": str,
}
RECORD_TYPES = {
    "manifest": str,
    "source": str,
    "weights": str,
    "teacher": dict,
    "settings": dict,
    "clips": int,
    "failed": int,
    "failed_examples": list,
    "agreement": dict,
}
TEACHER_TYPES = {"name": str, "options": dict, "path": str, "weights": str}


@dataclass(frozen=True)
class TestSet:
    """One test set, and how it is scored.

    Attributes:
        name: Name of the set, of its hypothesis files and of its column in the tables.
        manifest: Manifest of its clips.
        metric: `wer` or `cer`.
        normalizer: Name of the normaliser.
        language: English name of its language, empty if unknown.
        corpus: Name of the corpus that it is from.
        column: Column of the paper's Table 1, empty if it is not in the paper.
        scale: Scale of its corpus, `mini` or `paper`, empty if unknown.
        datadir: Data directory that it is from.
        spec: The value of --test_sets that named it. Empty for a set of a data directory.
    """

    __test__ = False  # no class of tests

    name: str
    manifest: Path
    metric: str
    normalizer: str
    language: str = ""
    corpus: str = ""
    column: str = ""
    scale: str = ""
    datadir: str = ""
    spec: str = ""


def test_set(corpus: Mapping[str, Any], name: str, datadir: str | Path) -> TestSet:
    """Return one test set of a data directory. Keys that its entry under `sets` lacks are those of the corpus.

    Args:
        corpus: Return value of `read_corpus_facts`.
        name: Name of the test set.
        datadir: Data directory.

    Returns:
        The test set. A relative path of its manifest starts at the data directory.
    """
    own = (corpus.get("sets") or {}).get(name) or {}

    def fact(key: str, of_corpus: str = "") -> str:
        return own.get(key) or corpus.get(of_corpus or key) or ""

    return TestSet(
        name,
        Path(datadir) / (own.get("manifest") or f"{name}.jsonl.gz"),
        fact("metric"),
        fact("normalizer"),
        fact("language"),
        fact("corpus", "name"),
        (corpus.get("paper") or {}).get(name) or "",
        fact("scale"),
        str(datadir),
    )


test_set.__test__ = False  # type: ignore[attr-defined]  # no test, although its name begins like one


def read_corpus_facts(datadir: str | Path) -> dict[str, Any]:
    """Read `corpus.json`.

    Args:
        datadir: Prepared data directory.

    Returns:
        Its content. It has a `name` and the list `test_sets`, which may be empty. Each test set has a metric and a
        normaliser (see `test_set`).

    Raises:
        UserError: The file is missing or broken, or a metric or normaliser is unknown.
    """
    path = Path(datadir) / "corpus.json"
    again = "delete the file and run the recipe from --stage 1"
    corpus = read_json(path, again if path.is_file() else "run the recipe from --stage 1")
    check_types(str(path), corpus, CORPUS_TYPES, again)
    for key in ("name", "test_sets"):
        if corpus.get(key) in (None, ""):
            raise UserError(f"{path}: key {key!r} is missing; {again}")
    _check_sets(path, corpus, again)
    own = [test_set(corpus, name, datadir) for name in corpus["test_sets"]]
    pairs = [(each.metric, each.normalizer) for each in own]
    for metric, normalize in dict.fromkeys(pairs or [(corpus.get("metric") or "", corpus.get("normalizer") or "")]):
        _check_scoring(path, metric, normalize, again)
    return corpus


def _check_sets(path: Path, corpus: dict[str, Any], again: str) -> None:
    names = corpus["test_sets"]
    if not all(isinstance(name, str) and SET_NAME.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise UserError(f"{path}: key 'test_sets' must be different names of manifests, got {names!r}; {again}")
    check_types(f"{path}, paper", corpus.get("paper") or {}, dict.fromkeys(names, str), again)
    for name, facts in (corpus.get("sets") or {}).items():
        check_types(f"{path}, set {name}", facts, SET_TYPES, again)


def _check_scoring(path: Path, metric: str, normalize: str, again: str) -> None:
    for key, value, known in (("metric", metric, METRICS), ("normalizer", normalize, NORMALIZERS)):
        if not value:
            raise UserError(f"{path}: key {key!r} is missing; {again}")
        if value not in known:
            raise UserError(
                f"{path}: unknown {key} {value!r}; correct it in corpus.yaml (one of: {', '.join(known)}) "
                "and run the recipe from --stage 1"
            )


def hypothesis_file(expdir: str | Path, run: str, test_set: str) -> Path:
    """Return the path of a hypothesis file. Its record has the same name with the suffix `.json`.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        test_set: Name of the test set.

    Returns:
        `<expdir>/<run>/decode/<test_set>.jsonl`.
    """
    return Path(expdir) / run / "decode" / f"{test_set}.jsonl"
