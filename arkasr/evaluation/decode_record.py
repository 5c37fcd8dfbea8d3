"""The record beside a hypothesis file: what the hypotheses were decoded from, and how many clips failed.

`<set>.json` has the keys `manifest` (digest of the clips), `source` (path of the manifest), `weights` (digest of the
model's weights, empty for teachers), `teacher` (identity of the teacher, None for other models), `settings` (section
`decode`, empty for teachers) and `clips` (number of clips in the manifest). In `settings`, `dtype` is the dtype of the
weights, never `auto`. When the hypotheses are complete, it also has `failed` (number of clips without a hypothesis),
`failed_examples`, and `agreement` (see `arkasr.evaluation.agreement`), which is absent if it was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arkasr.data.reasons import Failure
from arkasr.evaluation.checks import check_types
from arkasr.evaluation.identity import changed_teacher
from arkasr.evaluation.results_io import RECORD_TYPES, TEACHER_TYPES
from arkasr.utils.files import read_json, write_text

EXAMPLES = 5  # failed clips that a record names
_FREE = {"max_seconds", "agreement_clips"}  # no transcript depends on them


def read_record(hypotheses: Path) -> dict[str, Any] | None:
    """Read the record of complete or partial hypotheses.

    Args:
        hypotheses: The hypothesis file. It may be missing.

    Returns:
        The record, or None if there is none, as for hypotheses of older versions.

    Raises:
        UserError: The record is damaged.
    """
    path = hypotheses.with_suffix(".json")
    if not path.is_file():
        return None
    again = f"delete it and {hypotheses.stem}.jsonl*, and decode again with --stage 4"
    record = read_json(path, again)
    check_types(str(path), record, RECORD_TYPES, again)
    check_types(str(path), record, {"manifest": str, "weights": str, "settings": dict}, again, needed=True)
    if record.get("agreement") is not None:
        kinds = {"clips": int, "equal": int}
        check_types(f"{path}, agreement", record["agreement"], kinds, again, needed=True)
    if record.get("teacher") is not None:
        check_types(f"{path}, teacher", record["teacher"], TEACHER_TYPES, again, needed=True)
    return record


def write_record(
    hypotheses: Path,
    inputs: dict[str, Any],
    failures: Sequence[Failure] | None = None,
    agreement: dict[str, Any] | None = None,
) -> None:
    """Write the record of hypotheses.

    Args:
        hypotheses: The hypothesis file.
        inputs: The keys of the record up to `clips`.
        failures: The clips without a hypothesis. None if the hypotheses are not complete.
        agreement: Return value of `arkasr.evaluation.agreement.agreement`, or None if it was not measured.
    """
    counts: dict[str, Any] = {}
    if failures is not None:
        counts = {"failed": len(failures), "failed_examples": [str(one) for one in failures[:EXAMPLES]]}
    if agreement is not None:
        counts["agreement"] = agreement
    write_text(hypotheses.with_suffix(".json"), json.dumps(inputs | counts, indent=1) + "\n")


def changed_inputs(old: dict[str, Any], new: dict[str, Any], manifest: str, weights: str) -> list[str]:
    """Compare what hypotheses were decoded from to what they would be decoded from now.

    Args:
        old: Record of the hypotheses.
        new: The keys of a present record up to `clips`.
        manifest: Name of the manifest, for messages.
        weights: Name of the folder of the weights, for messages.

    Returns:
        What has changed. Empty if nothing has. Weights that no longer exist count as unchanged, and so does every
        dtype if `decode.dtype` is now `auto`.
    """
    changed = [f"clips or texts of {manifest}"] if old["manifest"] != new["manifest"] else []
    if old["weights"] and new["weights"] and old["weights"] != new["weights"]:
        changed.append(f"weights in {weights}")
    if old.get("teacher") and new["teacher"]:
        changed += changed_teacher(old["teacher"], new["teacher"])
    for one, other in ((old, new), (new, old)):  # by a run, and by a teacher: the model may be the same
        teacher = other.get("teacher")
        if one["weights"] and teacher and teacher["weights"] != one["weights"]:
            changed.append("the model: a trained run, or the teacher of the distilled runs")
    before, now = {"dtype": "float32"} | old["settings"], new["settings"]  # older versions knew only float32
    free = _FREE | ({"dtype"} if now.get("dtype") == "auto" else set())
    keys = sorted((before.keys() & now.keys()) - free)
    return changed + [f"decode.{key} ({before[key]}, now {now[key]})" for key in keys if before[key] != now[key]]
