"""Write experiments that were scored, as `arkasr table` reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arkasr.evaluation.published_tables import TABLES

CLIPS = {name: clips for table in TABLES.values() for name, clips in table.clips.items()}


def numbers(rate: float | None, version: str = "1", metric: str = "wer", **packages: str) -> dict[str, Any]:
    """Return the numbers of one profile."""
    pair = None if rate is None else [rate - 1, rate + 1]
    return {
        "version": version,
        "packages": packages,
        "metric": metric,
        "rate_percent": rate,
        "interval_percent": pair,
    }


def entry(
    column: str = "", default: str = "unicode", scale: str = "paper", clips: int = 0, **profiles: Any
) -> dict[str, Any]:
    """Return the entry of a test set. Numbers of profiles are values of `numbers`, with `_` for `-` in the names."""
    by_name = {name.replace("leaderboard", "leaderboard-2026-08"): found for name, found in profiles.items()}
    chosen = by_name.get(default) or numbers(None)
    return {
        "metric": chosen["metric"],
        "utterances": clips or CLIPS.get(column, 100),
        "corpus": "corpus",
        "column": column,
        "scale": scale,
        "warnings": [],
        "rate_percent": chosen["rate_percent"],
        "interval_percent": chosen["interval_percent"],
        "profile": {"name": default, "version": chosen["version"], "packages": chosen["packages"]},
        "profiles": by_name,
    }


def write_scores(expdir: Path, run: str, sets: dict[str, Any], **content: Any) -> Path:
    """Write scores.json of one run."""
    path = expdir / run / "scores.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": run, "sets": sets, "warnings": [], **content}), encoding="utf-8")
    return path


def write_metrics(expdir: Path, run: str, *vuss: float, top_k: int = 32) -> None:
    """Write metrics.jsonl and config.yaml of an OPD run."""
    folder = expdir / run
    folder.mkdir(parents=True, exist_ok=True)
    rows = ({"step": step, "loss": 1.0, "vuss": value} for step, value in enumerate(vuss, 1))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "config.yaml").write_text(f"objective: opd\ndistill: {{top_k: {top_k}}}\n", encoding="utf-8")
