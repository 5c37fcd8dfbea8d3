"""What the rows of the tables are from: teachers, weights, and warnings that concern whole rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arkasr.evaluation import inputs
from arkasr.evaluation.identity import changed_teacher
from arkasr.utils.redact import values_without_secrets

BASE, TEACHER = "base", "teacher"


def origin(run: str, sets: Mapping[str, Mapping[str, Any]], record: dict[str, Any]) -> dict[str, Any]:
    """Return what the hypotheses of a run are from.

    Args:
        run: Name of the run.
        sets: Its entries in scores.json, by test set.
        record: Content of run.json, with the configuration under "config", and that of a checkpoint under "checkpoint".

    Returns:
        The keys `teacher` (identity or None), `checkpoint` (None for runs), `weights` (digest, empty if the sets are of
        different ones), `recorded` and `warnings` of scores.json.
    """
    warnings, teacher = inputs.changed_inputs(record), inputs.teacher_of(record)
    checkpoint = record.get("checkpoint")
    if run == TEACHER or checkpoint:
        known = [entry["teacher"] for entry in sets.values() if entry.get("teacher")]
        teacher = known[0] if known else None
        if any(changed_teacher(known[0], other) for other in known[1:]):
            warnings.append("its test sets were decoded with different teachers; run --stage 4 to decode them again")
    weights = {entry.get("weights") or "" for entry in sets.values()}
    return {
        "teacher": values_without_secrets(teacher),
        "checkpoint": checkpoint,
        "weights": weights.pop() if len(weights) == 1 else "",
        "recorded": all(entry.get("recorded", True) for entry in sets.values()),
        "warnings": warnings,
    }


def compare_teachers(scores: Mapping[str, dict[str, Any]]) -> None:
    """Add a warning to distilled runs whose teacher is not the one of the teacher's row.

    Args:
        scores: Content of scores.json by run. It is changed.
    """
    shown = scores.get(TEACHER, {}).get("teacher")
    for run, content in scores.items():
        own = None if run == TEACHER or content.get("checkpoint") else content.get("teacher")
        if shown and own and (names := changed_teacher(own, shown)):
            content["warnings"].append(
                f"distilled from another teacher ({inputs.describe_teacher(own)}) than the row Teacher "
                f"({inputs.describe_teacher(shown)}); different: {', '.join(names)}"
            )
