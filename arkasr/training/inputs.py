"""What runs are trained from: data, parent model and teacher. Digests show whether they have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.config.schema import Config
from arkasr.data.manifests import digest
from arkasr.errors import UserError
from arkasr.evaluation.identity import changed_teacher, teacher_identity
from arkasr.utils.files import sampled_digest

_KEYS = {"data": "data.train", "dev": "data.dev"}


def run_inputs(config: Config, missing_ok: bool = False) -> dict[str, Any]:
    """Describe the run's inputs, for run.json.

    Args:
        config: The run's configuration.
        missing_ok: Leave out manifests that do not exist, as for a finished run.

    Returns:
        `data` and `dev`: path and SHA-256 digest of the manifest, None if it is not read. `parent`: path and digest of
        the weights that the run starts from, None for fresh weights. `teacher`: see `teacher_identity`, None without
        one.

    Raises:
        UserError: A manifest does not exist.
    """
    model, trains = config.model.path, config.objective != "none"
    measures = trains and config.train.eval_every > 0 and config.train.eval_clips > 0
    return {
        "data": _manifest(config.data.train, missing_ok) if trains else None,
        "dev": _manifest(config.data.dev, missing_ok) if measures else None,
        "parent": {"path": model, "weights": sampled_digest(Path(model))} if model else None,
        "teacher": teacher_identity(config.teacher) if config.objective == "opd" else None,
    }


def _manifest(path: str, missing_ok: bool) -> dict[str, str] | None:
    try:
        return {"path": path, "sha256": digest(path)}
    except UserError:
        if missing_ok:
            return None
        raise


def changed_inputs(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Compare the inputs that the run was started with to the present ones.

    Args:
        old: Recorded result of `run_inputs`.
        new: Present result of `run_inputs`.

    Returns:
        What has changed, as configuration keys with their values. Inputs that one side does not know are left out.
    """
    changed = []
    for name, key in _KEYS.items():
        before, now = old.get(name), new.get(name)
        if before and now and before["sha256"] != now["sha256"]:
            changed.append(f"{key} {now['path']} (other clips or texts)")
    before, now = old.get("parent"), new.get("parent")
    if before and now and before["weights"] and now["weights"] and before["weights"] != now["weights"]:
        changed.append(f"model.path {now['path']} (other weights: the run was trained from an earlier base)")
    if old.get("teacher") and new.get("teacher"):
        changed += changed_teacher(old["teacher"], new["teacher"])
    return changed
