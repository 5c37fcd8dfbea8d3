"""`arkasr score`: count errors and write scores.json of each run, the tables and the figures.

The error rate is the micro average (see `tally`). What makes a rate doubtful is written beside it: clips that were not
decoded, transcripts that do not depend on the audio, cut transcripts, and inputs that changed. Scores add up: each call
replaces those of its test sets and runs, and shows all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arkasr.config.load import read_config
from arkasr.errors import UserError
from arkasr.evaluation import paper_numbers, run_records
from arkasr.evaluation.checkpoint_values import parse_checkpoints
from arkasr.evaluation.checkpoints import CONFIG, read_checkpoint, weights_of
from arkasr.evaluation.chosen_sets import chosen_sets
from arkasr.evaluation.earlier_scores import check_names, drop_old_comparisons, outdated, read_earlier
from arkasr.evaluation.results_io import TestSet, led_by
from arkasr.evaluation.texts_io import read_utterances
from arkasr.reporting import figures, report, tables, terminal
from arkasr.reporting.one_profile import with_one_profile
from arkasr.reporting.origins import BASE, compare_teachers, origin
from arkasr.reporting.page import page
from arkasr.reporting.page.experiment import Experiment
from arkasr.reporting.profile_scores import compare_by_profile, not_scored
from arkasr.reporting.set_scores import score_set
from arkasr.reporting.shown_sets import shown_sets
from arkasr.scoring import bootstrap
from arkasr.utils.console import log, printable
from arkasr.utils.files import locked, write_text


def score_sets(
    expdir: str, records: dict[str, dict[str, Any]], sets: Sequence[TestSet], earlier: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Score runs on test sets. The runs are compared with Base.

    Args:
        expdir: Experiment directory.
        records: Content of run.json by run, with the configuration under "config".
        sets: The test sets.
        earlier: Content of scores.json by run. If Base is not among the runs, its hypotheses of test sets that were
            scored before are compared with.

    Returns:
        Entries of scores.json by run and test set.

    Raises:
        UserError: References or hypotheses are missing, broken, or do not belong together, or no run has an error rate.
    """
    entries: dict[str, dict[str, dict[str, Any]]] = {run: {} for run in records}
    for tested in sets:
        utterances, tallies = read_utterances(tested.manifest), {}
        speakers = [utterance.speaker for utterance in utterances.values()]
        for run, record in records.items():
            tallies[run], entries[run][tested.name] = score_set(expdir, run, tested, utterances, record)
        base, origin = tallies.get(BASE), entries.get(BASE, {}).get(tested.name)
        if BASE not in records and tested.name in earlier.get(BASE, {"sets": {}})["sets"]:
            base, origin = score_set(expdir, BASE, tested, utterances, run_records.read_run(expdir, BASE))
        for run, own in tallies.items():
            if run != BASE and base and own and origin is not None:
                compare_by_profile(entries[run][tested.name], own, base, speakers, origin["hypotheses"])
    _require_a_rate(expdir, sets, entries)
    return entries


def _require_a_rate(expdir: str, sets: Sequence[TestSet], scored: dict[str, dict[str, dict[str, Any]]]) -> None:
    entries = [entry for content in scored.values() for entry in content.values()]
    if any(entry["rate_percent"] is not None for entry in entries):
        return
    if any(entry["transcripts"] for entry in entries):
        raise UserError(
            f"{sets[0].manifest.parent}: nothing was scored, because no reference of the test sets has a word; correct "
            "the transcripts and run the recipe from --stage 1"
        )
    raise UserError(f"{expdir}: nothing was scored, because no clip was decoded; see the log of --stage 4, and run it")


def _contents(
    expdir: str,
    records: dict[str, dict[str, Any]],
    fresh: dict[str, dict[str, dict[str, Any]]],
    earlier: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the content of scores.json by run: what is scored now, and what was scored before."""
    header = {
        "jiwer": version("jiwer"),
        "bootstrap": {"resamples": bootstrap.NUM_RESAMPLES, "seed": bootstrap.SEED, "level": bootstrap.LEVEL},
    }
    scores = {}
    for run, record in records.items():
        old, new = earlier.get(run, {"sets": {}}), fresh.get(run, {})
        weights = weights_of(expdir, run)
        kept = {name: entry for name, entry in old["sets"].items() if name not in new}
        kept = {name: entry | {"outdated": outdated(expdir, run, name, entry, weights)} for name, entry in kept.items()}
        sets = {name: new.get(name) or kept[name] for name in dict.fromkeys([*old["sets"], *new])}
        scores[run] = {"run": run, **(header if new else {key: old[key] for key in header if key in old})}
        scores[run] |= {"sets": sets, **origin(run, sets, record)}
    compare_teachers(scores)
    drop_old_comparisons(scores, BASE)
    return scores


def _write(path: Path, text: str) -> None:
    write_text(path, text.encode("utf-8", "replace").decode())  # half characters of a damaged text cannot be written


def _display_path(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path.resolve()) if relative.startswith("..") else relative


def score(
    expdir: str,
    datadir: str,
    runs: Sequence[str],
    test_sets: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    profile: str = "",
) -> None:
    """Score decoded runs. Write `<run>/scores.json`, RESULTS.md, figures and report.html, and print Table 1.

    The scores of other test sets and of other runs stay.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        runs: Names of the runs. In the tables the runs of the recipes come first, from the teacher on, then others.
        test_sets: Values of --test_sets (see `arkasr.evaluation.chosen_sets`). If there are some, only they are scored.
        checkpoints: Values of --checkpoint (see `arkasr.evaluation.checkpoint_values`).
        profile: Name of the scoring profile that leads. Empty: the first one of each test set.

    Raises:
        UserError: No run is named, the profile is unknown or not for a test set, references or hypotheses are missing,
            broken, or do not belong together, nothing was scored, or another process scores in `expdir`.
    """
    runs = [*dict.fromkeys(runs), *(each.name for each in parse_checkpoints(checkpoints, expdir))]
    if not runs:
        raise UserError("--runs is empty; name the runs to score, such as --runs 'teacher base base_opd'")
    if not Path(expdir).is_dir():
        raise UserError(f"{expdir}: no such folder; correct --expdir, or run the recipe from --stage 3")
    with locked(Path(expdir), "scoring"):
        sets = chosen_sets(expdir, datadir, test_sets)
        _score(expdir, datadir, runs, [led_by(each, profile) for each in sets] if profile else sets)


def _score(expdir: str, datadir: str, runs: list[str], sets: Sequence[TestSet]) -> None:
    paper_numbers.columns(sets)  # an unknown column is an error before anything is written
    earlier = read_earlier(expdir, runs)
    check_names(earlier, sets)
    records = {run: _record(expdir, run) for run in runs}
    fresh = score_sets(expdir, records, sets, earlier)
    records = _with_others(expdir, records, earlier)
    scores = _contents(expdir, records, fresh, earlier)
    shown = with_one_profile(scores, fresh)
    for where, clause in tables.warnings(shown):
        log(f"warning: {where}: {clause}")
    for reason in not_scored(shown):
        log(f"warning: {reason}")
    if unrecorded := [run for run, content in scores.items() if not content["recorded"]]:
        log(f"warning: {', '.join(unrecorded)}: decoded by an older version, so weights and data are not compared")
    for run in runs:
        _write(Path(expdir) / run / "scores.json", json.dumps(scores[run], indent=2, ensure_ascii=False) + "\n")
    _publish(expdir, datadir, shown, records)


def write_page(expdir: str, datadir: str, audio_mib: float = page.AUDIO_MIB) -> None:
    """Write report.html again from what was scored before.

    Args:
        expdir: Experiment directory.
        datadir: Data directory.
        audio_mib: Maximum size of the audio in the page, in MiB. 0: none.

    Raises:
        UserError: No run was scored, or another process scores in `expdir`.
    """
    if not Path(expdir).is_dir():
        raise UserError(f"{expdir}: no such folder; correct --expdir")
    with locked(Path(expdir), "scoring"):
        earlier = read_earlier(expdir, [])
        records = _with_others(expdir, {}, earlier)
        if not records:
            raise UserError(f"{expdir}: no run in it was scored; decode and score with --stage 4 of the recipe")
        scores = with_one_profile(_contents(expdir, records, {}, earlier), {})
        sets, metrics = shown_sets(scores), {run: run_records.read_metrics(expdir, run) for run in scores}
        parts = report.sections(expdir, datadir, sets, scores, metrics, records, [])
        written = page.write(Experiment(expdir, sets, scores, metrics, records), parts, audio_mib)
        print(f"Report:  {_display_path(written)}")


def _with_others(
    expdir: str, records: dict[str, dict[str, Any]], earlier: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Add the records of the other runs that were scored, and sort all."""
    others = {run: known for run in earlier if run not in records and (known := run_records.read_or_skip(expdir, run))}
    found = records | {run: _with_checkpoint(expdir, run, record) for run, record in others.items()}
    return dict(sorted(found.items(), key=lambda item: paper_numbers.row_number(item[0])))  # stable


def _record(expdir: str, run: str) -> dict[str, Any]:
    return _with_checkpoint(expdir, run, run_records.read_run(expdir, run))


def _with_checkpoint(expdir: str, run: str, record: dict[str, Any]) -> dict[str, Any]:
    """Add which model a row belongs to that is no run of the experiment."""
    found = read_checkpoint(expdir, run)
    if found is None:
        return record
    settings = read_config(Path(expdir) / run / CONFIG).decode
    return record | {"checkpoint": found.facts, "config": {} if found.plugin else {"decode": asdict(settings)}}


def _publish(expdir: str, datadir: str, scores: dict[str, dict[str, Any]], records: dict[str, dict[str, Any]]) -> None:
    """Write RESULTS.md, the figures and report.html, and print Table 1."""
    sets = shown_sets(scores)
    metrics = {run: run_records.read_metrics(expdir, run) for run in scores}
    drawn = figures.draw(Path(expdir) / "figures", sets, scores, metrics)
    results = Path(expdir) / "RESULTS.md"
    parts = report.sections(expdir, datadir, sets, scores, metrics, records, drawn)
    _write(results, report.markdown(parts))
    written = page.write(Experiment(expdir, sets, scores, metrics, records), parts)
    print("\n".join(map(printable, terminal.table(sets, scores).split("\n"))))
    print(f"\nResults: {_display_path(results)}")
    print(f"Report:  {_display_path(written)}")
    for path in drawn:
        print(f"Figure:  {_display_path(path)}")
