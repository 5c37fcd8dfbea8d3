"""Compare what hypotheses and trained models were made of with what is there now: data, weights and teachers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from arkasr.data.manifests import digest, shards
from arkasr.data.mix import mix_files
from arkasr.errors import UserError
from arkasr.evaluation import decode_record
from arkasr.evaluation.checkpoints import Weights
from arkasr.utils.files import sampled_digest
from arkasr.utils.redact import values_without_secrets

Teacher = Mapping[str, Any]
AGAIN = "run --stage 4 to decode again"
INPUTS = ("data", "parent", "teacher")  # keys in run.json
SHOWN_DIGITS = 12  # of a digest


def check_hypotheses(
    path: Path, record: dict[str, Any], num_rows: int, manifest: Path, weights: Weights, settings: dict[str, Any]
) -> list[str]:
    """Compare hypotheses with the data, the weights and the settings that are there now.

    Args:
        path: The hypothesis file.
        record: Its record (see `decode_record`).
        num_rows: Number of its rows.
        manifest: Manifest of the test set.
        weights: The weights of the row. If they are not there, they are not compared.
        settings: Section `decode` of the run's configuration. Empty: not compared.

    Returns:
        What changed, in one clause or none, if the hypotheses can still be scored.

    Raises:
        UserError: Rows are missing without being recorded as failed, or weights changed.
    """
    clips, failed = record.get("clips"), record.get("failed")
    if clips is None or failed is None:
        raise UserError(f"{path}: decoding did not finish; {AGAIN}")
    if num_rows + failed != clips:
        raise UserError(
            f"{path}: incomplete: it holds {num_rows} hypotheses of {clips} clips, of which only {failed} could not be "
            "decoded; delete the file and decode again with --stage 4"
        )
    teacher = record.get("teacher")
    if teacher and _weights_changed(teacher):
        raise UserError(f"{path}: decoded with another teacher than {teacher['path']} holds now; {AGAIN}")
    if record["weights"] and weights.digest not in ("", record["weights"]):
        raise UserError(f"{path}: decoded with other weights than {weights.path} holds now; {AGAIN}")
    now = {"manifest": present_digest(str(manifest)), "weights": "", "teacher": None, "settings": settings}
    changed = decode_record.changed_inputs(record, now, str(manifest), weights.path)
    return [f"changed since it was decoded: {', '.join(changed)}; {AGAIN}"] if changed else []


def changed_inputs(record: dict[str, Any]) -> list[str]:
    """Compare the recorded inputs of a training run with what is there now.

    Args:
        record: Content of run.json.

    Returns:
        One sentence per input that changed. Inputs that are not recorded or no longer there are not compared.
    """
    inputs = record.get("inputs") or {}
    data, parent, teacher = ({**found} if isinstance(found, dict) else {} for found in map(inputs.get, INPUTS))
    sentences = []
    if _weights_changed(parent):
        sentences.append(
            f"trained from other weights than {parent['path']} holds now, so it does not belong to that model"
        )
    if _data_changed(data):
        sentences.append(f"trained on another content of {data['path']} than it has now")
    if _weights_changed(teacher):
        sentences.append(f"trained with another teacher than {teacher['path']} holds now")
    return sentences


def _weights_changed(recorded: Mapping[str, Any]) -> bool:
    path, weights = recorded.get("path"), recorded.get("weights")
    present = sampled_digest(Path(path)) if path and weights and isinstance(path, str) else ""
    return bool(present) and present != weights


def _data_changed(recorded: Mapping[str, Any]) -> bool:
    path, known = recorded.get("path"), recorded.get("sha256")
    return bool(path and known and isinstance(path, str)) and digest_if_there(str(path)) not in ("", known)


def digest_if_there(path: str) -> str:
    """Return the digest of a manifest.

    Args:
        path: The manifest, or an empty text.

    Returns:
        See `present_digest`. Empty if there is no manifest, or it cannot be read.
    """
    try:
        return present_digest(path) if path else ""
    except (UserError, OSError):
        return ""


def present_digest(path: str) -> str:
    """Return the digest of a manifest. Runs share their data, so it is computed once per state of the files.

    Args:
        path: The manifest.

    Returns:
        See `arkasr.data.manifests.digest`.

    Raises:
        UserError: It is missing or cannot be read.
    """
    files = [*mix_files(path), *shards(path)]
    return _digest(path, tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _digest(path: str, _state: tuple) -> str:
    return digest(path)


def teacher_of(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the identity of the teacher of a distilled run.

    Args:
        record: Content of run.json, with the configuration under "config".

    Returns:
        The recorded identity. If none is recorded, the one of the configuration, without weights. None for other runs.
    """
    config = record.get("config") or {}
    if config.get("objective") != "opd":
        return None
    recorded = (record.get("inputs") or {}).get("teacher")
    if isinstance(recorded, dict) and recorded.get("name"):
        return {"options": {}, "path": "", "weights": ""} | recorded
    section = config.get("teacher") or {}
    options = section.get("options")
    options = options if isinstance(options, dict) else {}
    others = values_without_secrets({key: value for key, value in options.items() if key != "path"})
    return {"name": section.get("name", ""), "options": others, "path": str(options.get("path", "")), "weights": ""}


def describe_teacher(teacher: Teacher) -> str:
    """Describe a teacher in one line.

    Args:
        teacher: Identity of a teacher.

    Returns:
        Its plugin, path and the first digits of the digest of its weights, as far as they are known. No secrets.
    """
    shown = values_without_secrets(dict(teacher))
    digits = f"weights {shown['weights'][:SHOWN_DIGITS]}" if shown["weights"] else ""
    url = str(shown["options"].get("url") or "")
    return ", ".join(part for part in (f"`{shown['name']}`", shown["path"], url, digits) if part)
