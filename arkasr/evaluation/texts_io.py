"""Read and check the texts that scoring compares: references and hypotheses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from arkasr.data.checks import Rules
from arkasr.data.manifests import read_cuts
from arkasr.errors import UserError
from arkasr.evaluation.checks import check_types, json_lines
from arkasr.scoring.utterances import Utterance

AGAIN = "delete the file and decode again with --stage 4"
# References may be empty, and need no language.
TEXTS_ONLY = Rules(language="unknown", needs_text=False, any_language=True)
ROW_TYPES = {"id": str, "hypothesis": str, "reference": str, "stopped": bool, "looping": bool}


def read_utterances(manifest: Path) -> dict[str, Utterance]:
    """Read reference, duration, speaker and condition of each clip of a test set.

    Args:
        manifest: Manifest of the test set. The condition is the custom field `condition` of a cut.

    Returns:
        Utterances by cut id, in the order of the manifest.

    Raises:
        UserError: The manifest is missing, broken or empty.
    """
    if not manifest.exists():
        raise UserError(f"{manifest}: no such file; prepare the data with --stage 1")
    return {cut.id: _utterance(cut) for cut in read_cuts(str(manifest), TEXTS_ONLY)}


def _utterance(cut: Cut) -> Utterance:
    """Describe a clip. Several speakers in one clip count as one of their own."""
    text = " ".join(part.text or "" for part in cut.supervisions)
    speakers = dict.fromkeys(str(part.speaker) for part in cut.supervisions if part.speaker)
    condition = (getattr(cut, "custom", None) or {}).get("condition")
    return Utterance(text, cut.duration, "+".join(speakers), "" if condition is None else str(condition))


def read_references(manifest: Path) -> dict[str, str]:
    """Read the reference texts of a test set.

    Args:
        manifest: Manifest of the test set.

    Returns:
        Reference text by cut id, in the order of the manifest.

    Raises:
        UserError: The manifest is missing, broken or empty.
    """
    return {identity: utterance.text for identity, utterance in read_utterances(manifest).items()}


def read_hypotheses(path: Path, references: dict[str, str], manifest: Path) -> dict[str, dict[str, Any]]:
    """Read a hypothesis file.

    Args:
        path: The file (see `hypothesis_file`).
        references: Reference text by id. Utterances without a hypothesis are allowed.
        manifest: Manifest of the references, for error messages.

    Returns:
        Hypothesis rows by id.

    Raises:
        UserError: The file is missing, some row is broken or repeated, or an id is not in the test set.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.is_file():
        found = f"decoding did not finish, and its rows are in {part.name}" if part.is_file() else "no such file"
        raise UserError(f"{path}: {found}; decode it with --stage 4")
    rows: dict[str, dict[str, Any]] = {}
    for number, row in json_lines(path):
        _check_row(f"{path}, line {number}", row)
        if row["id"] in rows:
            raise UserError(f"{path}, line {number}: duplicate id {row['id']}; {AGAIN}")
        rows[row["id"]] = row
    unknown = next((identity for identity in rows if identity not in references), None)
    if unknown is not None:
        raise UserError(
            f"{path}: decoded from other data (id {unknown} is not in {manifest}); {AGAIN}, or set the matching "
            "--datadir"
        )
    return rows


def _check_row(where: str, row: Any) -> None:
    if isinstance(row, ValueError):
        raise UserError(f"{where}: not valid JSON in UTF-8; {AGAIN}")
    check_types(where, row, ROW_TYPES, AGAIN)
    missing = [key for key in ("id", "hypothesis", "stopped") if key not in row]
    missing += [key for key in ("id", "hypothesis") if key in row and row[key] is None]
    if missing:
        raise UserError(f"{where}: key {missing[0]!r} is missing; {AGAIN}")
