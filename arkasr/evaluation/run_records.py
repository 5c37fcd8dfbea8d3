"""Read what training runs have recorded: metrics.jsonl, run.json, config.yaml and scores.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arkasr.config.schema import Config
from arkasr.config.yaml_io import read_yaml
from arkasr.errors import UserError
from arkasr.evaluation.checks import check_types, has_type, is_finite, json_lines
from arkasr.scoring.older import profile_of
from arkasr.utils.console import log
from arkasr.utils.files import read_json

RUN_TYPES = {
    "recipe": str,
    "command": str,
    "started": str,
    "commit": str,
    "versions": dict,
    "plugins": list,
    "world_size": int,
    "inputs": dict,
    "final": dict,
}
CONFIG_TYPES = {"objective": str, "decode": dict, "teacher": dict}
SCORE_TYPES = {"sets": dict}
SET_TYPES = {
    "rate_percent": float,
    "interval_percent": list,
    "utterances": int,
    "warnings": list,
    "outdated": list,
    "against_base": dict,
    "profiles": dict,
    "breakdown": dict,
    "hallucination": dict,
    "speakers": int,
    "utterance_error_percent": float,
    "interval_by_speaker_percent": list,
    "teacher": dict,
    **dict.fromkeys(
        ("language", "corpus", "column", "scale", "manifest", "datadir", "spec", "digest", "hypotheses", "weights"), str
    ),
}
PROFILE_TYPES = {"name": str, "version": str, "packages": dict}
NORMALIZER_TYPES = {"name": str, "version": str}
AGAIN_3 = "delete it and run the recipe from --stage 3"
AGAIN_5 = "delete it and run the recipe from --stage 5"


def read_metrics(expdir: str | Path, run: str) -> list[dict[str, Any]]:
    """Read the training rows of `<expdir>/<run>/metrics.jsonl`.

    A resumed run logs some steps again. The last row of each step is used. Lines that are no metrics rows, such as the
    torn last line of a killed run, are skipped, and their number is logged.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        One row per logged step, in the order of steps. Numbers that are not finite are None. Empty if there is no such
        file.
    """
    path = Path(expdir) / run / "metrics.jsonl"
    rows, skipped = {}, []
    for number, row in json_lines(path) if path.is_file() else ():
        if not _is_metrics_row(row):
            skipped.append(number)
        elif "loss" in row:
            rows[row["step"]] = {k: v if v is not None and is_finite(v) else None for k, v in row.items()}
    if skipped:
        log(f"warning: {path}, line {skipped[0]}: not a metrics row, skipped (number of skipped lines: {len(skipped)})")
    return [rows[step] for step in sorted(rows)]


def last_step(expdir: str | Path, run: str, config: Config) -> int:
    """Return the number of steps of a finished run.

    Args:
        expdir: Experiment directory.
        run: Name of the run.
        config: Its configuration.

    Returns:
        `train.steps`. The last step in metrics.jsonl if the length of the run is given in epochs or hours, or if
        `train.patience` may have ended it early.
    """
    rows = [] if config.train.steps and not config.train.patience else read_metrics(expdir, run)
    return rows[-1]["step"] if rows else config.train.steps


def _is_metrics_row(row: Any) -> bool:
    if not isinstance(row, dict) or not has_type(row.get("step"), int):
        return False
    return all(value is None or isinstance(value, (int, float)) for value in row.values())


def trained_here(run: str, record: dict[str, Any]) -> bool:
    """Return whether a row is a run of the experiment, and neither another model nor a pretrained teacher.

    Args:
        run: Name of the run.
        record: Result of `read_run`, perhaps with the key `checkpoint`.

    Returns:
        False for models of --checkpoint, and for a teacher without any record.
    """
    return not record.get("checkpoint") and (run != "teacher" or any(record.values()))


def read_run(expdir: str | Path, run: str) -> dict[str, Any]:
    """Read the record of a training run.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        Content of `run.json`, with the content of `config.yaml` under "config". Missing files count as empty, because
        a pretrained teacher has neither.

    Raises:
        UserError: One of the files is broken.
    """
    folder = Path(expdir) / run
    path, config = folder / "run.json", folder / "config.yaml"
    record = read_json(path, AGAIN_3) if path.is_file() else {}
    check_types(str(path), record, RUN_TYPES, AGAIN_3)
    for plugin in record.get("plugins") or []:
        check_types(f"{path}, plugins", plugin, {}, AGAIN_3)
    known = {key: value for key, value in record.items() if value is not None}
    settings = read_yaml(config) if config.is_file() else {}
    check_types(str(config), settings, CONFIG_TYPES, AGAIN_3)
    if config.is_file() and not settings:
        raise UserError(f"{config}: is empty; {AGAIN_3}")
    return {**known, "config": settings}


def read_or_skip(expdir: str | Path, run: str) -> dict[str, Any] | None:
    """Read the record of a run that is not scored now. A damaged one is logged, because no result depends on it.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        See `read_run`. None if it is damaged.
    """
    try:
        return read_run(expdir, run)
    except UserError as error:
        log(f"warning: {error} (its command is left out of RESULTS.md)")
        return None


def read_scores(expdir: str | Path, run: str) -> dict[str, Any] | None:
    """Read the scores.json of one run.

    Args:
        expdir: Experiment directory.
        run: Name of the run.

    Returns:
        Its content, or None if the run was not scored.

    Raises:
        UserError: The file is broken.
    """
    path = Path(expdir) / run / "scores.json"
    if not path.is_file():
        return None
    scores = read_json(path, AGAIN_5)
    check_types(str(path), scores, SCORE_TYPES, AGAIN_5, needed=True)
    check_types(str(path), scores, {"warnings": list, "weights": str, "checkpoint": dict, "teacher": dict}, AGAIN_5)
    for name, summary in scores["sets"].items():
        where = f"{path}, set {name}"
        check_types(where, summary, SET_TYPES, AGAIN_5)
        _lift(scores, summary, where)
        check_types(where, summary, {"utterances": int, "metric": str, "profile": dict}, AGAIN_5, needed=True)
        check_types(f"{where}, profile", summary["profile"], PROFILE_TYPES, AGAIN_5, needed=True)
        pair = summary.get("interval_percent")
        if pair is not None and (len(pair) != 2 or not all(has_type(value, float) for value in pair)):
            raise UserError(f"{path}, set {name}: key 'interval_percent' must be two numbers, got {pair}; {AGAIN_5}")
    return scores


def _lift(scores: dict[str, Any], summary: dict[str, Any], where: str) -> None:
    """Fill in what older versions wrote once for all sets, and the profile that has the rules of their normaliser."""
    for key in ("metric", "normalizer", "weights"):
        if key in scores:
            summary.setdefault(key, scores[key])
    scorer = summary.pop("normalizer", None)
    if scorer is not None and "profile" not in summary:
        check_types(where, {"normalizer": scorer}, {"normalizer": dict}, AGAIN_5, needed=True)
        check_types(f"{where}, normalizer", scorer, NORMALIZER_TYPES, AGAIN_5, needed=True)
        summary["profile"] = profile_of(scorer)
