"""The test sets of an experiment, as scores.json keeps them: how each was scored, and where it is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from arkasr.evaluation import paper_numbers
from arkasr.evaluation.results_io import TestSet
from arkasr.utils.redact import values_without_secrets

MANY_CORPORA = 3  # above this number, titles count them
_TEXTS = ("metric", "language", "corpus", "column", "scale", "datadir", "spec", "scored_as")


def facts_of(tested: TestSet) -> dict[str, Any]:
    """Return what the entry of a test set in scores.json holds besides its counts.

    Args:
        tested: The test set.

    Returns:
        `metric`, `profile` (name, version and packages), `language`, `scored_as` (if there are several languages),
        `corpus`, `column` (of the paper's Table 1), `scale`, `manifest`, `datadir` and `spec` (the value of
        --test_sets, empty for a set of a data directory).
    """
    return {
        "metric": tested.metric,
        "profile": tested.profile.facts(),
        "language": tested.language,
        **({"scored_as": tested.scored_as} if tested.scored_as else {}),
        "corpus": tested.corpus,
        "column": tested.column,
        "scale": tested.scale,
        "manifest": str(tested.manifest.absolute()),
        "datadir": tested.datadir,
        "spec": values_without_secrets(tested.spec),
    }


def _from_entry(name: str, entry: Mapping[str, Any]) -> TestSet:
    texts = {key: entry.get(key) or "" for key in _TEXTS}
    names = dict.fromkeys([entry["profile"]["name"], *(entry.get("profiles") or ())])
    return TestSet(name, Path(entry.get("manifest") or ""), profiles=tuple(names), **texts)


def shown_sets(scores: Mapping[str, Mapping[str, Any]]) -> list[TestSet]:
    """Return all test sets that were ever scored.

    Args:
        scores: Content of scores.json by run.

    Returns:
        The test sets in the order in which they were first scored. If all columns of the paper's Table 1 are among
        them, these come first, in the paper's order.
    """
    found: dict[str, TestSet] = {}
    for content in scores.values():
        for name, entry in content["sets"].items():
            if name not in found or not found[name].corpus:  # older versions did not record it
                found[name] = _from_entry(name, entry)
    sets, columns = list(found.values()), [column.lower() for column in paper_numbers.COLUMNS]
    present = {each.column.lower() for each in sets}
    if not present.issuperset(columns):
        return sets
    order = {column: number for number, column in enumerate(columns)}
    return sorted(sets, key=lambda each: order.get(each.column.lower(), len(columns)))


def title(sets: Sequence[TestSet]) -> str:
    """Name the corpora of test sets.

    Args:
        sets: The test sets.

    Returns:
        Their names, such as "librispeech" or "librispeech, aishell", or their number if there are many.
    """
    names = list(dict.fromkeys(each.corpus for each in sets if each.corpus))
    return ", ".join(names) if len(names) <= MANY_CORPORA else f"{len(names)} corpora"


def is_miniature(sets: Iterable[TestSet]) -> bool:
    """Return whether some test set is not of paper scale.

    Args:
        sets: The test sets.

    Returns:
        True if there is one.
    """
    return any(each.scale != "paper" for each in sets)


def metric_names(sets: Iterable[TestSet]) -> str:
    """Name the metrics of test sets.

    Args:
        sets: The test sets.

    Returns:
        "WER", "MER", "CER", or several of them, such as "WER or CER".
    """
    return " or ".join(sorted({each.metric.upper() for each in sets}, reverse=True))


def labels(sets: Sequence[TestSet]) -> dict[str, str]:
    """Label test sets.

    Args:
        sets: The test sets.

    Returns:
        Label by name: the name, followed by the metric if the metrics differ, such as "test-clean (WER)".
    """
    mixed = len({each.metric for each in sets}) > 1
    return {each.name: f"{each.name} ({each.metric.upper()})" if mixed else each.name for each in sets}
