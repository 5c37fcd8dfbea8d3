"""Scores of earlier calls of `arkasr score`: other test sets of the same runs, and other runs of the experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arkasr.errors import UserError
from arkasr.evaluation import inputs, run_records
from arkasr.evaluation.checkpoints import Weights
from arkasr.evaluation.results_io import TestSet, hypothesis_file
from arkasr.scoring.profiles import PROFILES
from arkasr.utils.console import log
from arkasr.utils.files import sha256

AGAIN = "run --stage 5 on it again"


def read_earlier(expdir: str, runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the scores of all runs and checkpoints of an experiment.

    Args:
        expdir: Experiment directory.
        runs: The runs that are scored now.

    Returns:
        Content of scores.json: of `runs` in their order, as far as they were scored, then of the others by name.

    Raises:
        UserError: The file of one of `runs` is damaged. A damaged one of another run is logged and left out.
    """
    found = {run: scores for run in runs if (scores := run_records.read_scores(expdir, run))}
    for path in sorted(Path(expdir).glob("*/scores.json")):
        run = path.parent.name
        if run in runs:
            continue
        try:
            scores = run_records.read_scores(expdir, run)
        except UserError as error:
            log(f"warning: {error} (it is left out of RESULTS.md)")
            continue
        if scores:
            found[run] = scores
    return found


def check_names(earlier: Mapping[str, Mapping[str, Any]], sets: Sequence[TestSet]) -> None:
    """Check that no test set has the name of another one that was scored in this experiment.

    Args:
        earlier: Content of scores.json by run.
        sets: The test sets to score.

    Raises:
        UserError: One has the name of a test set with another manifest and other clips.
    """
    for tested in sets:
        for run, content in earlier.items():
            entry = content["sets"].get(tested.name) or {}
            if is_another(tested, entry.get("manifest"), entry.get("digest")):
                raise UserError(another_set(tested, f"the scores of {run}", entry["manifest"]))


def is_another(tested: TestSet, manifest: str | None, digest: str | None) -> bool:
    """Return whether a recorded test set of the same name is another one.

    Args:
        tested: The test set.
        manifest: Recorded path of the manifest, or None if it is not recorded.
        digest: Recorded digest of its clips, or None.

    Returns:
        True if both the path and the clips differ. A moved manifest, or one that was prepared again, is the same.
    """
    if not manifest or not digest or str(tested.manifest.absolute()) == manifest:
        return False
    return inputs.present_digest(str(tested.manifest)) != digest


def another_set(tested: TestSet, what: str, manifest: str) -> str:
    """Describe two test sets of one name.

    Args:
        tested: The test set.
        what: What is from the other one.
        manifest: Manifest of the other one.

    Returns:
        The message of an error.
    """
    return (
        f"{tested.manifest}: {what} are of another test set with the name {tested.name} ({manifest}); give this one "
        f"another name with --test_sets NAME={tested.manifest}, or use another --expdir"
    )


def outdated(expdir: str, run: str, name: str, entry: Mapping[str, Any], weights: Weights) -> list[str]:
    """Compare a test set that is not scored now with what it was scored from.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        name: Name of the test set.
        entry: Its entry in scores.json.
        weights: The weights of the run.

    Returns:
        One clause per change. What is not recorded, or no longer there, is not compared.
    """
    hypotheses, manifest = hypothesis_file(expdir, run, name), entry.get("manifest") or ""
    changed = []
    if entry.get("hypotheses") and hypotheses.is_file() and sha256(hypotheses) != entry["hypotheses"]:
        changed.append("its hypotheses")
    if entry.get("digest") and inputs.digest_if_there(manifest) not in ("", entry["digest"]):
        changed.append(f"clips or texts of {manifest}")
    if entry.get("weights") and weights.digest not in ("", entry["weights"]):
        changed.append(f"weights in {weights.path}")
    scorer = entry["profile"]
    present = PROFILES.get(scorer["name"])
    if present is None or present.version != scorer["version"]:
        changed.append(f"scoring profile {scorer['name']} (version {scorer['version']})")
    return [f"changed since it was scored: {', '.join(changed)}; {AGAIN}"] if changed else []


def drop_old_comparisons(scores: Mapping[str, dict[str, Any]], base: str) -> None:
    """Remove comparisons with hypotheses of Base that have changed since.

    Args:
        scores: Content of scores.json by run. It is changed.
        base: Name of the run that others are compared with.
    """
    present = {name: entry.get("hypotheses") for name, entry in scores.get(base, {}).get("sets", {}).items()}
    for run, content in scores.items():
        for name, entry in content["sets"].items():
            compared = (entry.get("against_base") or {}).get("hypotheses")
            if run != base and compared and present.get(name) not in (None, compared):
                del entry["against_base"]
                entry["outdated"] = [*entry.get("outdated", ()), f"Base was decoded again since; {AGAIN}"]
