"""Score one run on one test set, and say what makes its error rate doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import inputs, texts_io
from arkasr.evaluation.checkpoints import weights_of
from arkasr.evaluation.decode_record import read_record
from arkasr.evaluation.results_io import TestSet, hypothesis_file
from arkasr.reporting.origins import TEACHER
from arkasr.reporting.profile_scores import count_by_profile, profile_entries
from arkasr.reporting.shown_sets import facts_of
from arkasr.scoring.breakdown import measured
from arkasr.scoring.collapse import collapsed
from arkasr.scoring.tally import NO_COUNTS, Tally
from arkasr.scoring.transcript_counts import transcript_counts
from arkasr.scoring.utterances import Utterance
from arkasr.utils.console import printable
from arkasr.utils.files import sha256
from arkasr.utils.redact import values_without_secrets

NOTABLE_SHARE = 0.01  # of cut or looping transcripts
MOST_EXAMPLES = 3


def score_set(
    expdir: str, run: str, tested: TestSet, utterances: Mapping[str, Utterance], record: Mapping[str, Any]
) -> tuple[dict[str, Tally], dict[str, Any]]:
    """Score one run on one test set.

    An utterance without a hypothesis counts as deletions, because other systems are scored on it too. If there is no
    hypothesis at all, nothing was measured, and there is no error rate.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        tested: The test set.
        utterances: The utterances of the test set by id.
        record: Content of run.json, with the configuration under "config". A teacher has none.

    Returns:
        Counts per utterance by profile, empty if there is no hypothesis, and the entry for scores.json.

    Raises:
        UserError: Hypotheses are missing, broken, incomplete, or of other data or weights.
    """
    references = {identity: utterance.text for identity, utterance in utterances.items()}
    path = hypothesis_file(expdir, run, tested.name)
    rows = texts_io.read_hypotheses(path, references, tested.manifest)
    _check_references(references, rows, tested, path)
    decoded, changed = read_record(path), []
    if decoded is not None:
        settings = {} if run == TEACHER else (record.get("config") or {}).get("decode") or {}
        weights = weights_of(expdir, run)
        changed = inputs.check_hypotheses(path, decoded, len(rows), tested.manifest, weights, settings)
    found = [rows[identity]["hypothesis"] if identity in rows else "" for identity in references]
    tallies = count_by_profile(tested, list(references.values()), found) if rows else {}
    texts = _normalized(tested, {identity: row["hypothesis"] for identity, row in rows.items()})
    expected = _normalized(tested, references)
    lengths = {"utterances": len(references), "empty_references": list(expected.values()).count("")}
    own = tallies.get(tested.profiles[0])
    entry = NO_COUNTS | lengths if own is None else measured(own, list(utterances.values()))
    entry |= {"profiles": profile_entries(tested, tallies)} | _transcripts(rows, texts, references, decoded)
    doubts = _doubts(entry, decoded, [expected[identity] for identity in texts], list(texts.values())) + changed
    made_of = {"digest": inputs.present_digest(str(tested.manifest)), "hypotheses": sha256(path)} | _origin(decoded)
    return tallies, {**facts_of(tested), **entry, **made_of, "warnings": [printable(clause) for clause in doubts]}


def _origin(decoded: dict[str, Any] | None) -> dict[str, Any]:
    known = decoded or {}
    teacher = values_without_secrets(known.get("teacher"))
    return {"recorded": decoded is not None, "weights": known.get("weights", ""), "teacher": teacher}


def _normalized(tested: TestSet, texts: Mapping[str, str]) -> dict[str, str]:
    return dict(zip(texts, tested.profile.normalize_all(list(texts.values()), tested.rules), strict=True))


def _check_references(references: dict[str, str], rows: dict[str, dict], tested: TestSet, path: Path) -> None:
    """Raise UserError if a hypothesis row holds another reference: the ids are equal, but the data is not."""
    recorded = {identity: row["reference"] for identity, row in rows.items() if row.get("reference") is not None}
    present = _normalized(tested, {identity: references[identity] for identity in recorded})
    for identity, text in _normalized(tested, recorded).items():
        if text != present[identity]:
            raise UserError(
                f"{path}: decoded from other data (the reference of {identity} differs from the text in "
                f"{tested.manifest}); delete the file and decode again with --stage 4"
            )


def _transcripts(
    rows: dict[str, dict], texts: dict[str, str], references: dict[str, str], record: dict[str, Any] | None
) -> dict[str, Any]:
    """Return counts of transcripts, and their agreement with those in float32. None: not reported."""
    stopped, looping = ([row.get(key) for row in rows.values()] for key in ("stopped", "looping"))
    return {
        **transcript_counts(list(texts.values()), stopped, looping),
        "missing_hypotheses": len(references) - len(rows),
        "missing_examples": [identity for identity in references if identity not in rows][:MOST_EXAMPLES],
        "failed_clips": record["failed"] if record else None,
        "agreement": (record or {}).get("agreement"),
    }


def _doubts(
    entry: dict[str, Any], record: dict[str, Any] | None, references: Sequence[str], texts: Sequence[str]
) -> list[str]:
    """Return what the error rate does not show, one clause each."""
    doubts, missing, clips = [], entry["missing_hypotheses"], entry["utterances"]
    if missing:
        follows = "their words count as deletions" if texts else "no error rate"
        doubts.append(f"{missing} of {clips} clips not decoded: {_reason(entry, record)}; {follows}")
    if found := collapsed(texts, references):
        doubts.append(f"transcripts hardly depend on the audio: {found}; do not compare this error rate")
    for key, what in (("not_stopped", "are cut at the token cap"), ("looping", "end in a loop")):
        number = entry[key]
        if number and number >= NOTABLE_SHARE * len(texts):
            doubts.append(f"{number} of {len(texts)} transcripts ({100 * number / len(texts):.1f} %) {what}")
    return doubts


def _reason(entry: dict[str, Any], record: dict[str, Any] | None) -> str:
    examples = (record or {}).get("failed_examples") or []
    if record and entry["failed_clips"]:
        shown = "; ".join(str(example).split("; ")[0] for example in examples[:MOST_EXAMPLES])  # without the remedies
        return shown or "their audio could not be read"
    return f"no hypothesis in the file (first: {entry['missing_examples'][0]})"
